"""The live tree at its one path: in the end it is the one that Postgres names, whichever executor died or was late."""

import asyncio
import errno
import os
import time
from uuid import UUID

import pytest
from tests.integration.executor.platform import LINK_IS_PENDING, Platform, eventually, value
from tests.integration.executor.processes import Executors
from tests.integration.executor.test_sweeper import bench

from wvs.domain.states import TaskState
from wvs.engines.volume import switching as volume_switching
from wvs.executor.switching import bring_live
from wvs.executor.workbench import Workbench
from wvs.telemetry.metrics import Metrics

__all__ = ["bench"]


async def with_snapshots(platform: Platform, count: int = 1) -> tuple[UUID, list[UUID]]:
    async with platform.running():
        workspace_id = await platform.create()
        return workspace_id, [await platform.ready_snapshot(workspace_id) for _ in range(count)]


async def follows(platform: Platform, workspace_id: UUID) -> bool:
    pending = await platform.pool.fetchval(LINK_IS_PENDING, workspace_id)
    workspace = await platform.workspace(workspace_id)
    return not pending and platform.live_tree(workspace_id) == workspace.live_tree


async def test_a_link_left_behind_by_a_crash_is_moved_within_two_seconds(
    platform: Platform, executors: Executors
) -> None:
    workspace_id, (snapshot_id,) = await with_snapshots(platform)
    before = platform.live_tree(workspace_id)
    first = executors.start(failpoints="set.committed=kill")
    metrics = Metrics()
    await platform.ask_for_current(workspace_id, snapshot_id)
    assert await first.ended() == -9
    assert platform.live_tree(workspace_id) == before
    assert (await platform.workspace(workspace_id)).live_tree != before
    async with platform.running(metrics):
        started = time.monotonic()
        await eventually(lambda: follows(platform, workspace_id))
        assert time.monotonic() - started < 2.5
        await platform.until_swept(workspace_id)


async def test_no_task_starts_before_the_link_of_the_last_one_is_moved(
    platform: Platform, executors: Executors
) -> None:
    workspace_id, (snapshot_id,) = await with_snapshots(platform)
    first = executors.start(failpoints="set.committed=kill", executor_slots="1")
    await platform.ask_for_current(workspace_id, snapshot_id)
    _, next_task = await platform.ask_for_snapshot(workspace_id)
    assert await first.ended() == -9
    second = executors.start(failpoints="create.started=stop")
    await second.until_stopped()
    assert await follows(platform, workspace_id)
    second.go_on()
    assert await platform.wait(workspace_id, next_task) is TaskState.SUCCEEDED


async def test_the_link_of_a_mover_that_hangs_is_moved_by_another_one(platform: Platform, executors: Executors) -> None:
    workspace_id, (snapshot_id,) = await with_snapshots(platform)
    first = executors.start(failpoints="switch.asked=stop@1")
    await platform.ask_for_current(workspace_id, snapshot_id)
    await first.until_stopped()
    async with platform.running():
        await eventually(lambda: follows(platform, workspace_id))
        first.go_on()
        await platform.until_swept(workspace_id)


@pytest.mark.parametrize("point", ["switch.asked", "switch.taken", "switch.asked_again", "switch.exchanged"])
async def test_a_mover_that_comes_late_ends_with_the_right_tree(
    platform: Platform, executors: Executors, point: str
) -> None:
    """It read the name of an older live tree, slept for two switches, and then goes on: no fence can stop a rename."""
    workspace_id, (one, two) = await with_snapshots(platform, 2)
    late = executors.start(failpoints=f"{point}=stop@1")
    await platform.ask_for_current(workspace_id, one)
    await late.until_stopped()
    async with platform.running():
        assert await platform.set_current(workspace_id, two) is TaskState.SUCCEEDED
        assert await platform.set_current(workspace_id, one) is TaskState.SUCCEEDED
        before = platform.home(workspace_id).joinpath("live").stat().st_ino
        late.go_on()
        for _ in range(20):
            assert await follows(platform, workspace_id), "not even for a moment"
            await asyncio.sleep(0.05)
        assert late.alive
        assert platform.home(workspace_id).joinpath("live").stat().st_ino == before
        await platform.until_swept(workspace_id)


def failing(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_tree_that_cannot_be_brought_is_brought_when_it_can_and_no_snapshot_succeeds_before(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path shows the old tree until then: a snapshot of the new one would hold other files than the path shows."""
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
        snapshot_id = await platform.ready_snapshot(workspace_id)
        real = volume_switching.rename_exchange
        monkeypatch.setattr(volume_switching, "rename_exchange", failing)
        task_id = await platform.ask_for_current(workspace_id, snapshot_id)
        await platform.until(workspace_id, task_id, TaskState.SUCCEEDED)
        _, next_task = await platform.ask_for_snapshot(workspace_id)

        async def attempt_failed() -> bool:
            return "task.attempt_failed.v1" in await platform.events(workspace_id)

        await eventually(attempt_failed)
        assert await platform.pool.fetchval(LINK_IS_PENDING, workspace_id)
        assert value(metrics, "wvs_ignored_failures_total", where="switch") >= 1
        assert value(metrics, "wvs_task_attempts_total", kind="current_set", outcome="succeeded") == 1
        monkeypatch.setattr(volume_switching, "rename_exchange", real)
        await eventually(lambda: follows(platform, workspace_id))
        await platform.until(workspace_id, next_task, TaskState.SUCCEEDED)


async def test_many_movers_at_once_leave_the_right_tree(platform: Platform, bench: Workbench) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        snapshots = [await platform.ready_snapshot(workspace_id) for _ in range(2)]
    for round_ in range(4):
        async with platform.running():
            task_id = await platform.ask_for_current(workspace_id, snapshots[round_ % 2])
            await platform.until(workspace_id, task_id, TaskState.SUCCEEDED)
            await asyncio.gather(*(bring_live(bench, workspace_id) for _ in range(8)))
        assert await follows(platform, workspace_id)
        assert platform.live(workspace_id).is_dir()
    async with platform.running():
        await platform.until_swept(workspace_id)
    assert {p.name for p in platform.home(workspace_id).iterdir()} == {"current", "live", "switch", "trees", "trash"}
