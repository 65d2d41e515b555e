"""A volume, a database, and a caller that uses both as the API does; executors in this process or in real ones."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from wvs.application.write_path import Origin, Reply, WritePath
from wvs.domain.commands import CancelTask, Command, CreateSnapshot, CreateWorkspace, DropSnapshot, SetCurrent
from wvs.domain.events import Event
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import RETRYABLE_STATES, TaskKind, TaskState
from wvs.domain.values import TaskError
from wvs.domain.workspace import Workspace
from wvs.engines.volume.names import tree_name
from wvs.engines.volume.opening import init_volume
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.recorder import IdempotencyKey, Show
from wvs.executor.worker import Executor
from wvs.postgres.pool import Pool
from wvs.queue.lanes import DEADLINES_S
from wvs.settings import Settings
from wvs.signals.hints import EVENTS, TASKS, Hinter
from wvs.telemetry.metrics import Metrics

LINK_IS_PENDING: Final = "SELECT EXISTS (SELECT FROM wvs.lanes WHERE workspace_id = $1 AND link_pending IS NOT NULL)"

FAST = Settings(lease_s=2.0, lease_renew_s=0.5, poll_s=0.2, drain_grace_s=2.0, executor_slots=2, pool_size=6)
"""Short times, so that a test sees a lease run out."""


MANY: Final = 12_000
"""Files that no machine clones within the tenth of a second before the first report of progress."""


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    """What `check` returns, once that is true."""
    ends = time.monotonic() + seconds
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < ends, f"not within {seconds} s: {check}"
        await asyncio.sleep(0.02)


class Platform:
    """The caller: sends commands and waits for the end of their tasks."""

    def __init__(self, pool: Pool, url: str, volume: Path) -> None:
        self.pool = pool
        self.url = url
        self.volume = volume
        self.settings = FAST
        self._hinter = Hinter(url, lambda: None)
        self.path = WritePath(pool, EventMapper(), Metrics(), lambda _id, _events: self._hinter.touch(TASKS, EVENTS))

    def settings_with_volume(self) -> Settings:
        return msgspec.structs.replace(self.settings, volume=self.volume)

    def settings_change(self, **changes: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, **changes)

    @contextlib.asynccontextmanager
    async def hinting(self) -> AsyncGenerator["Platform"]:
        async with self._hinter.running():
            yield self

    @contextlib.asynccontextmanager
    async def running(
        self, metrics: Metrics | None = None, deadlines_s: Mapping[TaskKind, float] = DEADLINES_S, **settings: Any
    ) -> AsyncGenerator[Executor]:
        """An executor in this process, drained at the end of the block."""
        chosen = msgspec.structs.replace(self.settings_with_volume(), **settings)
        executor = Executor(chosen, self.url, metrics or Metrics(), deadlines_s)
        task = asyncio.create_task(executor.run())
        try:
            yield executor
        finally:
            executor.stop()
            await task

    async def execute(self, workspace_id: UUID, command: Command, request_id: str = "test") -> Workspace:
        origin = Origin(actor="tester", request_id=request_id)
        committed = await self.path.execute(workspace_id, command, at=datetime.now(UTC), origin=origin)
        assert committed.workspace is not None
        return committed.workspace

    async def ask_for_workspace(self) -> tuple[UUID, UUID]:
        workspace_id, task_id = uuid.uuid4(), uuid.uuid4()
        await self.execute(workspace_id, CreateWorkspace(f"w-{workspace_id.hex[:8]}", {}, task_id))
        return workspace_id, task_id

    async def ask_for_snapshot(self, workspace_id: UUID) -> tuple[UUID, UUID]:
        snapshot_id, task_id = uuid.uuid4(), uuid.uuid4()
        await self.execute(workspace_id, CreateSnapshot(snapshot_id, task_id, None, {}))
        return snapshot_id, task_id

    async def traced_snapshot(self, workspace_id: UUID, request_id: str, traceparent: str, key: str) -> UUID:
        """Requests a snapshot as the API does: with a request id, a trace, and an idempotency key."""
        task_id = uuid.uuid4()
        origin = Origin("tester", request_id, idempotency_key=key, traceparent=traceparent)

        def describe(_events: list[Event], _workspace: Workspace) -> tuple[int, Show]:
            return 202, Show(task=task_id)

        reply = Reply(describe, IdempotencyKey("tester", key, b"f" * 32))
        command = CreateSnapshot(uuid.uuid4(), task_id, None, {})
        await self.path.execute(workspace_id, command, at=datetime.now(UTC), origin=origin, reply=reply)
        return task_id

    async def ask_for_current(self, workspace_id: UUID, snapshot_id: UUID, *, reset: bool = False) -> UUID:
        task_id = uuid.uuid4()
        await self.execute(workspace_id, SetCurrent(snapshot_id, task_id, reset))
        return task_id

    async def ask_for_drop(self, workspace_id: UUID, snapshot_id: UUID) -> UUID:
        task_id = uuid.uuid4()
        await self.execute(workspace_id, DropSnapshot(snapshot_id, task_id))
        return task_id

    async def cancel(self, workspace_id: UUID, task_id: UUID) -> None:
        await self.execute(workspace_id, CancelTask(task_id))

    async def create(self) -> UUID:
        workspace_id, task_id = await self.ask_for_workspace()
        assert await self.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        return workspace_id

    async def snapshot(self, workspace_id: UUID) -> tuple[UUID, TaskState]:
        snapshot_id, task_id = await self.ask_for_snapshot(workspace_id)
        return snapshot_id, await self.wait(workspace_id, task_id)

    async def ready_snapshot(self, workspace_id: UUID) -> UUID:
        snapshot_id, state = await self.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
        return snapshot_id

    async def set_current(self, workspace_id: UUID, snapshot_id: UUID, *, reset: bool = False) -> TaskState:
        return await self.wait(workspace_id, await self.ask_for_current(workspace_id, snapshot_id, reset=reset))

    async def drop(self, workspace_id: UUID, snapshot_id: UUID) -> TaskState:
        return await self.wait(workspace_id, await self.ask_for_drop(workspace_id, snapshot_id))

    async def workspace(self, workspace_id: UUID) -> Workspace:
        workspace = await self.path.load(workspace_id)
        assert workspace is not None
        return workspace

    async def wait(self, workspace_id: UUID, task_id: UUID, seconds: float = 30) -> TaskState:
        """The state of the task once it is final and the link has followed."""

        async def final() -> TaskState | None:
            state = (await self.workspace(workspace_id)).task_state(task_id)
            assert state is not None
            done = state is TaskState.FAILED or state not in RETRYABLE_STATES
            return state if done and not await self.pool.fetchval(LINK_IS_PENDING, workspace_id) else None

        return await eventually(final, seconds)

    async def until(self, workspace_id: UUID, task_id: UUID, state: TaskState, seconds: float = 20) -> None:
        async def is_there() -> bool:
            return (await self.workspace(workspace_id)).task_state(task_id) is state

        await eventually(is_there, seconds)

    async def events(self, workspace_id: UUID) -> list[str]:
        """The types of the workspace's events, in order."""
        query = "SELECT topic FROM wvs.events WHERE originator_id = $1 ORDER BY originator_version"
        return [topic for (topic,) in await self.pool.fetch(query, workspace_id)]

    async def error(self, task_id: UUID) -> TaskError:
        """The error that the task shows."""
        error = await self.pool.fetchval("SELECT error FROM wvs.tasks WHERE id = $1", task_id)
        return msgspec.json.decode(error, type=TaskError)

    async def task_row(self, task_id: UUID) -> dict[str, Any]:
        row = await self.pool.fetchrow("SELECT * FROM wvs.tasks WHERE id = $1", task_id)
        assert row is not None
        return dict(row)

    async def trees_now(self, workspace_id: UUID) -> set[str]:
        """The names that must be among the trees: the live tree and those of the snapshots."""
        workspace = await self.workspace(workspace_id)
        kept = {s.tree for s in workspace.snapshots.values() if s.state in ("ready", "dropping", "drop_failed")}
        return {t for t in (*kept, workspace.live_tree) if t is not None}

    async def until_swept(self, workspace_id: UUID, seconds: float = 20) -> None:
        """Waits until the volume holds only trees that the log names."""

        async def clean() -> bool:
            wanted = await self.trees_now(workspace_id)
            return self.trees(workspace_id) == wanted and not self.trees(workspace_id, "trash")

        await eventually(clean, seconds)

    def home(self, workspace_id: UUID) -> Path:
        return self.volume / format_id(WORKSPACE, workspace_id)

    def live(self, workspace_id: UUID) -> Path:
        return self.home(workspace_id) / "live" / "root"

    def link(self, workspace_id: UUID) -> Path:
        return self.home(workspace_id) / "current"

    def fill(self, workspace_id: UUID, files: int, size: int = 16) -> None:
        """Puts many small files into the live tree."""
        for number in range(files):
            (self.live(workspace_id) / f"{number:05}").write_bytes(number.to_bytes(4, "big") * (size // 4))

    def trees(self, workspace_id: UUID, place: str = "trees") -> set[str]:
        """The names in `trees`, with the live tree and what a switch holds; or the names in the trash."""
        home = self.home(workspace_id)
        names = {p.name for p in (home / place).iterdir()}
        if place != "trees":
            return names
        live = self.live_tree(workspace_id)
        return names | {f"switch/{p.name}" for p in (home / "switch").iterdir()} | ({live} if live else set())

    def live_tree(self, workspace_id: UUID) -> str:
        """The tree at the workspace's path, by the file beside its root; empty without one."""
        file = self.home(workspace_id) / "live" / "name"
        try:
            return str(file.readlink()) if file.is_symlink() else file.read_text().strip()
        except FileNotFoundError:
            return ""

    def root(self, workspace_id: UUID, tree: str) -> Path:
        if tree == self.live_tree(workspace_id):
            return self.live(workspace_id)
        return self.home(workspace_id) / "trees" / tree / "root"

    def tree_of(self, task_id: UUID, fence: int) -> str:
        return tree_name(task_id, fence)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of one series; 0 if it has none."""
    return metrics.registry.get_sample_value(name, labels) or 0.0


def make_volume(path: Path) -> Path:
    init_volume(str(path), uuid.uuid4(), "copy")
    return path
