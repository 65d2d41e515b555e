"""Cancels of tasks that wait, that wait for a retry, and that run; in time and too late."""

import asyncio
from uuid import UUID

import pytest
from tests.integration.executor.platform import MANY, Platform, eventually, value
from tests.integration.executor.processes import Executors

from wvs import failpoints
from wvs.domain.commands import DisableWorkspace
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.states import SnapshotState, TaskState, WorkspaceState
from wvs.telemetry.metrics import Metrics


async def snapshot_state(platform: Platform, workspace_id: UUID, snapshot_id: UUID) -> SnapshotState:
    return (await platform.workspace(workspace_id)).snapshots[snapshot_id].state


async def asked_to_cancel(platform: Platform, workspace_id: UUID, task_id: UUID) -> None:
    await platform.until(workspace_id, task_id, TaskState.RUNNING)
    await asyncio.sleep(0.1)
    await platform.cancel(workspace_id, task_id)


async def test_a_queued_task_is_cancelled_at_once_and_the_next_one_runs(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
    first, first_task = await platform.ask_for_snapshot(workspace_id)
    second, second_task = await platform.ask_for_snapshot(workspace_id)
    await platform.cancel(workspace_id, first_task)
    assert (await platform.workspace(workspace_id)).task_state(first_task) is TaskState.CANCELLED
    async with platform.running():
        assert await platform.wait(workspace_id, second_task) is TaskState.SUCCEEDED
    assert await snapshot_state(platform, workspace_id, first) is SnapshotState.FAILED
    assert await snapshot_state(platform, workspace_id, second) is SnapshotState.READY


async def test_a_task_that_waits_for_its_retry_is_cancelled_at_once(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        failpoints.arm("create.stamped=error")
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        await eventually(lambda: attempts_failed(platform, workspace_id, 2))
        await platform.cancel(workspace_id, task_id)
        failpoints.arm("")
        await platform.ready_snapshot(workspace_id)
        assert (await platform.workspace(workspace_id)).task_state(task_id) is TaskState.CANCELLED
        await platform.until_swept(workspace_id)


async def attempts_failed(platform: Platform, workspace_id: UUID, wanted: int) -> bool:
    workspace = await platform.workspace(workspace_id)
    waits = workspace.running is None
    return waits and (await platform.events(workspace_id)).count("task.attempt_failed.v1") >= wanted


@pytest.mark.parametrize("place", ["create.cloning", "create.syncing"])
async def test_a_running_task_is_cancelled_at_its_next_safe_point(platform: Platform, place: str) -> None:
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
        failpoints.arm(f"{place}=sleep:1.5")
        snapshot_id, task_id = await platform.ask_for_snapshot(workspace_id)
        await asked_to_cancel(platform, workspace_id, task_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.CANCELLED
        await platform.until_swept(workspace_id)
    assert await snapshot_state(platform, workspace_id, snapshot_id) is SnapshotState.FAILED
    assert "snapshot.created.v1" not in await platform.events(workspace_id)
    assert value(metrics, "wvs_task_attempts_total", kind="snapshot_create", outcome="cancelled") == 1
    assert value(metrics, "wvs_lease_lost_total") == 0


async def test_disabling_a_workspace_in_mid_task_ends_the_task_and_keeps_the_trees(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        first = await platform.ready_snapshot(workspace_id)
        (platform.live(workspace_id) / "a").write_text("two")
        live = platform.live_tree(workspace_id)
        failpoints.arm("set.syncing=sleep:1.5")
        set_task = await platform.ask_for_current(workspace_id, first)
        snapshot_id, snapshot_task = await platform.ask_for_snapshot(workspace_id)
        await platform.until(workspace_id, set_task, TaskState.RUNNING)
        await asyncio.sleep(0.1)
        workspace = await platform.execute(workspace_id, DisableWorkspace("no more"))
        assert workspace.task_state(snapshot_task) is TaskState.CANCELLED, "what was queued ends at once"
        assert await platform.wait(workspace_id, set_task) is TaskState.CANCELLED
        await platform.until_swept(workspace_id)
    assert await snapshot_state(platform, workspace_id, snapshot_id) is SnapshotState.FAILED
    assert await snapshot_state(platform, workspace_id, first) is SnapshotState.READY
    assert (await platform.workspace(workspace_id)).state is WorkspaceState.DISABLED
    assert platform.live_tree(workspace_id) == live
    assert (platform.live(workspace_id) / "a").read_text() == "two"


async def test_a_task_that_ends_just_after_its_workspace_was_disabled_is_recorded(platform: Platform) -> None:
    """The task had passed its last safe point: the result exists, and the log has it."""
    async with platform.running():
        workspace_id = await platform.create()
        first = await platform.ready_snapshot(workspace_id)
        failpoints.arm("drop.removing=sleep:1")
        task_id = await platform.ask_for_drop(workspace_id, first)
        await platform.until(workspace_id, task_id, TaskState.RUNNING)
        await asyncio.sleep(0.1)
        failpoints.arm("")
        await platform.execute(workspace_id, DisableWorkspace(None))
        state = await platform.wait(workspace_id, task_id)
    expected = {TaskState.SUCCEEDED: SnapshotState.DROPPED, TaskState.CANCELLED: SnapshotState.DROP_FAILED}
    assert await snapshot_state(platform, workspace_id, first) is expected[state]


async def test_a_cancel_in_mid_clone_ends_the_clone_not_only_its_commit(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        platform.fill(workspace_id, MANY)
        failpoints.arm(
            "create.cloning=sleep:0.12"
        )  # with every batch of files, once the first tenth of a second is over
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        await asked_to_cancel(platform, workspace_id, task_id)
        assert await platform.wait(workspace_id, task_id, seconds=10) is TaskState.CANCELLED
        await platform.until_swept(workspace_id)


async def test_a_cancel_that_comes_too_late_is_recorded_and_so_is_the_outcome(
    platform: Platform, executors: Executors
) -> None:
    executors.start(failpoints="drop.purged=sleep:1")  # no order comes in between the removal and its commit
    workspace_id = await platform.create()
    snapshot_id = await platform.ready_snapshot(workspace_id)
    tree = (await platform.workspace(workspace_id)).snapshots[snapshot_id].tree
    task_id = await platform.ask_for_drop(workspace_id, snapshot_id)

    async def removed() -> bool:
        return tree not in platform.trees(workspace_id) | platform.trees(workspace_id, "trash")

    await eventually(removed)
    await platform.cancel(workspace_id, task_id)
    assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    assert (await platform.events(workspace_id))[-2:] == ["task.cancel_requested.v1", "snapshot.dropped.v1"]
    with pytest.raises(Refused) as refused:
        await platform.cancel(workspace_id, task_id)
    assert refused.value.code is ErrorCode.TASK_NOT_CANCELLABLE


async def test_a_drop_cancelled_before_it_touched_anything_leaves_the_snapshot_ready(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        snapshot_id = await platform.ready_snapshot(workspace_id)
    task_id = await platform.ask_for_drop(workspace_id, snapshot_id)
    await platform.cancel(workspace_id, task_id)
    assert await snapshot_state(platform, workspace_id, snapshot_id) is SnapshotState.READY
    async with platform.running():
        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED


async def test_a_drop_cancelled_after_its_directory_moved_is_no_ready_snapshot(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        platform.fill(workspace_id, 20)
        snapshot_id = await platform.ready_snapshot(workspace_id)
        tree = (await platform.workspace(workspace_id)).snapshots[snapshot_id].tree
        failpoints.arm("drop.removing=sleep:1.2")
        task_id = await platform.ask_for_drop(workspace_id, snapshot_id)

        async def moved() -> bool:
            return tree not in platform.trees(workspace_id)

        await eventually(moved)
        await platform.cancel(workspace_id, task_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.CANCELLED
        assert await snapshot_state(platform, workspace_id, snapshot_id) is SnapshotState.DROP_FAILED
        failpoints.arm("")
        assert await platform.drop(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)
