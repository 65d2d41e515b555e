"""The volume is away for a while: accepted tasks wait for it, say so, and run when it is back."""

import asyncio
import contextlib
import errno
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from uuid import UUID

import pytest
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.integration.executor.platform import Platform, eventually, make_volume

from wvs.domain.errors import ErrorCode
from wvs.domain.policy import RETRY
from wvs.domain.states import TaskKind, TaskState
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.volume.opening import init_volume
from wvs.engines.volume.volume import Volume


class Outage(Protocol):
    volume: Path

    def begin(self) -> None: ...

    def end(self) -> None: ...


class PathMissing:
    """No directory at the path."""

    def __init__(self, _namespace: Namespace, tmp_path: Path) -> None:
        self.volume = make_volume(tmp_path / "volume")
        self._elsewhere = tmp_path / "elsewhere"

    def begin(self) -> None:
        self.volume.rename(self._elsewhere)

    def end(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.volume.rmdir()
        self._elsewhere.rename(self.volume)


class EmptyMountPoint(PathMissing):
    """The directory that the filesystem was mounted over."""

    def begin(self) -> None:
        super().begin()
        self.volume.mkdir()


class Unmounted:
    """A filesystem on a loop device, unmounted and mounted again."""

    def __init__(self, namespace: Namespace, _tmp_path: Path) -> None:
        name = f"away-{uuid.uuid4().hex[:8]}"
        self._point = filesystems.ext4(namespace, name)
        self._image = namespace.directory / f"{name}.img"
        self.volume = make_volume(self._point / "volume")

    def begin(self) -> None:
        filesystems.run_when_free("umount", self._point)

    def end(self) -> None:
        filesystems.run("mount", "-o", "loop", self._image, self._point)


class KilledJuicefs:
    """The mount process is killed, which leaves a mount that answers ENOTCONN; later it is mounted again."""

    def __init__(self, namespace: Namespace, _tmp_path: Path) -> None:
        self._namespace = namespace
        self._name = f"away-{uuid.uuid4().hex[:8]}"
        self._point = filesystems.juicefs(namespace, self._name)
        self.volume = self._point / "volume"
        init_volume(str(self.volume), uuid.uuid4(), "juicefs")

    def begin(self) -> None:
        serving = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if self._serves(p)]
        assert serving
        for pid in serving:
            os.kill(pid, 9)

    def _serves(self, command: Path) -> bool:
        try:
            line = command.read_text()
        except OSError:
            return False
        return "juicefs mount " in line and f"/{self._name}-data/" in line

    def end(self) -> None:
        filesystems.run("umount", "-l", self._point)
        program, data = filesystems.juicefs_program(), self._namespace.directory / f"{self._name}-data"
        caches = ["--cache-dir", f"{data}/cache", "--log", f"{data}/log"]
        command = [program, "mount", "--enable-xattr", "--no-usage-report", *caches, f"sqlite3://{data}/meta.db"]
        self._namespace.daemon(
            [*command, str(self._point)],
            ready=lambda: os.path.ismount(self._point),
            environment=os.environ | {"HOME": str(data)},
        )


OUTAGES = [PathMissing, EmptyMountPoint, Unmounted, KilledJuicefs]


async def waits(platform: Platform, workspace_id: UUID, task_id: UUID) -> str:
    """The reason that the task shows, once it has waited through more attempts than its kind has."""

    async def many() -> bool:
        failed = (await platform.events(workspace_id)).count("task.attempt_failed.v1")
        return failed > RETRY[TaskKind.SNAPSHOT_DROP].max_attempts

    await eventually(many, 60)

    async def between_two_attempts() -> str | None:
        row = await platform.task_row(task_id)
        if row["state"] != "queued":
            return None
        assert row["attempt"] == 0
        assert row["next_attempt_at"] is not None
        error = await platform.error(task_id)
        assert (error.code, error.retryable) == (ErrorCode.VOLUME_UNAVAILABLE, True)
        return f"{error.detail}; {error.hint}"

    return await eventually(between_two_attempts)


@pytest.mark.parametrize("kind", OUTAGES)
async def test_accepted_tasks_wait_for_a_volume_that_is_away_and_then_succeed(
    platform: Platform, namespace: Namespace, tmp_path: Path, kind: Callable[[Namespace, Path], Outage]
) -> None:
    try:
        outage = kind(namespace, tmp_path)
    except Unavailable as error:
        pytest.skip(str(error))
    platform.volume = outage.volume
    async with platform.running(executor_slots=4):
        workspaces = [await platform.create() for _ in range(3)]
        dropped = await platform.ready_snapshot(workspaces[2])
        outage.begin()
        asked = [(w, (await platform.ask_for_snapshot(w))[1]) for w in workspaces[:2]]
        asked.append((workspaces[2], await platform.ask_for_drop(workspaces[2], dropped)))
        for workspace_id, task_id in asked:
            reason = await waits(platform, workspace_id, task_id)
            assert "waiting for the volume since" in reason
            assert "WVS tries again by itself until" in reason
        outage.end()
        for workspace_id, task_id in asked:
            assert await platform.wait(workspace_id, task_id, 30) is TaskState.SUCCEEDED
            assert (await platform.task_row(task_id))["attempt"] == 1, "a wait is no attempt"
        assert (await platform.snapshot(workspaces[0]))[1] is TaskState.SUCCEEDED


async def test_an_executor_whose_mount_works_takes_over_from_one_whose_mount_is_gone(
    platform: Platform, namespace: Namespace
) -> None:
    try:
        point = namespace.mount(f"second-{uuid.uuid4().hex[:8]}", "--bind", str(platform.volume))
    except Unavailable as error:
        pytest.skip(str(error))
    async with platform.running():
        workspaces = [await platform.create() for _ in range(4)]
    async with platform.running(volume=point) as cut_off:
        await asyncio.wait_for(cut_off.serving.wait(), 30)
        filesystems.run_when_free("umount", point)
        asked = [(w, (await platform.ask_for_snapshot(w))[1]) for w in workspaces]
        for workspace_id, task_id in asked:
            await waits(platform, workspace_id, task_id)
            assert set(await started_by(platform, workspace_id, task_id)) == {cut_off.executor_id}
        async with platform.running() as working:
            # From now on both claim.
            asked += [(w, (await platform.ask_for_snapshot(w))[1]) for w in workspaces]
            for workspace_id, task_id in asked:
                assert await platform.wait(workspace_id, task_id, 60) is TaskState.SUCCEEDED
                assert (await started_by(platform, workspace_id, task_id))[-1] == working.executor_id


async def started_by(platform: Platform, workspace_id: UUID, task_id: UUID) -> list[str]:
    """The executors that started the attempts at a task, in order."""
    rows = await platform.pool.fetch(
        "SELECT convert_from(state, 'UTF8')::jsonb #>> '{event,executor}' FROM wvs.events WHERE originator_id = $1 "
        "AND task_id = $2 AND topic LIKE 'task.started.%' ORDER BY originator_version",
        workspace_id,
        task_id,
    )
    return [executor for (executor,) in rows]


async def test_a_volume_whose_other_trees_work_is_not_waited_for(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad_sector(*_args: object) -> None:
        raise from_os_error(OSError(errno.EIO, "EIO"), ErrorCode.CLONE_FAILED, "reading a file")

    async with platform.running():
        workspace_id = await platform.create()
        monkeypatch.setattr(Volume, "stamp", bad_sector)
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        row = await platform.task_row(task_id)
    assert row["attempt"] == RETRY[TaskKind.SNAPSHOT_CREATE].max_attempts
    assert (
        await platform.error(task_id)
    ).detail == "reading a file: EIO, Input/output error: the disk or its network failed"


async def test_a_snapshot_is_not_taken_for_lost_because_its_mount_went_away_in_the_middle(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = PathMissing(Namespace(tmp_path), tmp_path)
    platform.volume = outage.volume
    stamp = Volume.stamp
    gone: list[float] = []

    def mount_goes(volume: Volume, *args: object) -> object:
        if gone:
            return stamp(volume, *args)  # type: ignore[arg-type]
        gone.append(time.monotonic())
        outage.begin()
        raise EngineError(ErrorCode.TREE_MISSING, "the root is missing", retryable=False)

    async with platform.running():
        workspace_id = await platform.create()
        snapshot_id = await platform.ready_snapshot(workspace_id)
        monkeypatch.setattr(Volume, "stamp", mount_goes)
        task_id = await platform.ask_for_current(workspace_id, snapshot_id)
        await waits(platform, workspace_id, task_id)
        outage.end()
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    assert "snapshot.lost.v1" not in await platform.events(workspace_id)
