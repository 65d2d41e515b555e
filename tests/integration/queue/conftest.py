"""Lanes without executors: connections that claim as slots do, and commands that end the claimed tasks."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from wvs.application.write_path import Origin, WritePath
from wvs.domain.commands import (
    CancelTask,
    Command,
    CreateSnapshot,
    CreateWorkspace,
    FailAttempt,
    FinishInit,
    RetryTask,
    StartTask,
)
from wvs.domain.errors import ErrorCode
from wvs.domain.states import TaskKind
from wvs.domain.values import TaskError
from wvs.domain.workspace import Workspace
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.recorder import Hold
from wvs.postgres.pool import OwnConnection, Pool, connect
from wvs.queue.lanes import DEADLINES_S, Claim, LaneCursor, claim, release
from wvs.telemetry.metrics import Metrics

LOST = TaskError(ErrorCode.LEASE_LOST, "gone", retryable=True)
FINAL = TaskError(ErrorCode.CLONE_FAILED, "no", retryable=False)
AGAIN = TaskError(ErrorCode.CLONE_FAILED, "not yet", retryable=True)


class Holder:
    """A connection that claims lanes as a slot of an executor does."""

    def __init__(self, connection: OwnConnection, name: str, path: WritePath) -> None:
        self.connection = connection
        self.name = name
        self.path = path
        self.cursor = LaneCursor()

    async def claim(self, lease_s: float = 30, deadlines_s: dict[TaskKind, float] | None = None) -> Claim | None:
        return await claim(self.connection, self.name, lease_s, self.cursor, deadlines_s or DEADLINES_S)

    async def claimed(self, lease_s: float = 30, deadlines_s: dict[TaskKind, float] | None = None) -> Claim:
        """Claims within 2 s: a lane that was put off is ready again after 100 ms."""
        for _ in range(100):
            held = await self.claim(lease_s, deadlines_s)
            if held is not None:
                return held
            await asyncio.sleep(0.02)
        raise AssertionError("nothing to claim")

    async def start(self, held: Claim) -> None:
        tree = None if held.kind is TaskKind.SNAPSHOT_DROP else f"t.{held.fence}"
        await self.report(held, StartTask(held.task_id, held.fence, self.name, tree, datetime.now(UTC), LOST))

    async def fail(self, held: Claim, error: TaskError = FINAL) -> None:
        await self.report(held, FailAttempt(held.task_id, held.fence, error, datetime.now(UTC), 0.0))

    async def finish_init(self, held: Claim) -> None:
        await self.report(held, FinishInit(held.task_id, held.fence, f"t.{held.fence}", "copy"))

    async def report(self, held: Claim, command: Command) -> None:
        hold = Hold(held.task_id, held.fence)
        await self.path.execute(held.workspace_id, command, at=datetime.now(UTC), origin=ORIGIN, hold=hold)

    async def release(self, held: Claim) -> bool:
        return await release(self.connection, held)

    async def run(self) -> Claim:
        """Claims a task, starts it, fails it for good, and releases the lane."""
        held = await self.claimed()
        await self.start(held)
        await self.fail(held)
        await self.release(held)
        return held


ORIGIN = Origin(actor="tester", request_id="test")
NewHolder = Callable[[str], Awaitable[Holder]]


class Lanes:
    """Workspaces with queued tasks, and their lanes."""

    def __init__(self, pool: Pool, path: WritePath, holder: Holder) -> None:
        self.pool = pool
        self.path = path
        self._holder = holder

    async def execute(self, workspace_id: UUID, command: Command) -> Workspace:
        committed = await self.path.execute(workspace_id, command, at=datetime.now(UTC), origin=ORIGIN)
        assert committed.workspace is not None
        return committed.workspace

    async def workspace(self, queued: int = 0) -> tuple[UUID, list[UUID]]:
        """An active workspace with `queued` queued snapshots, oldest first."""
        workspace_id = uuid.uuid4()
        await self.execute(workspace_id, CreateWorkspace(f"w-{workspace_id.hex[:8]}", {}, uuid.uuid4()))
        held = await self._holder.claimed()
        assert held.workspace_id == workspace_id
        await self._holder.start(held)
        await self._holder.finish_init(held)
        await self._holder.release(held)
        return workspace_id, [await self.enqueue(workspace_id) for _ in range(queued)]

    async def workspaces(self, *queued: int) -> list[UUID]:
        """One active workspace for each number in `queued`, with that many queued tasks."""
        made = [(await self.workspace())[0] for _ in queued]
        for workspace_id, count in zip(made, queued, strict=True):
            for _ in range(count):
                await self.enqueue(workspace_id)
        return made

    async def enqueue(self, workspace_id: UUID) -> UUID:
        task_id = uuid.uuid4()
        await self.execute(workspace_id, CreateSnapshot(uuid.uuid4(), task_id, None, {}))
        return task_id

    async def cancel(self, workspace_id: UUID, task_id: UUID) -> None:
        await self.execute(workspace_id, CancelTask(task_id))

    async def retry(self, workspace_id: UUID, task_id: UUID) -> None:
        await self.execute(workspace_id, RetryTask(task_id))

    async def column(self, workspace_id: UUID, name: str) -> object:
        return await self.pool.fetchval(f"SELECT {name} FROM wvs.lanes WHERE workspace_id = $1", workspace_id)


@pytest.fixture
async def new_holder(pool: Pool, database_url: str) -> AsyncIterator[NewHolder]:
    connections: list[OwnConnection] = []

    async def make(name: str) -> Holder:
        connections.append(await connect(database_url, application_name=name))
        return Holder(connections[-1], name, WritePath(pool, EventMapper(), Metrics()))

    yield make
    for connection in connections:
        connection.terminate()


@pytest.fixture
async def lanes(pool: Pool, new_holder: NewHolder) -> Lanes:
    holder = await new_holder("setup")
    return Lanes(pool, WritePath(pool, EventMapper(), Metrics()), holder)
