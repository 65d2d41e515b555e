"""A running task and its claim: the holder is gone, hangs, or comes back after its lease."""

import asyncio
import time
from uuid import UUID

import pytest
from tests.integration.executor.platform import Platform, eventually, value
from tests.integration.executor.processes import ExecutorProcess, Executors
from tests.integration.executor.tcp_proxy import TcpProxy

from wvs import failpoints
from wvs.domain.errors import ErrorCode
from wvs.domain.states import TaskState
from wvs.telemetry.metrics import Metrics

TAKEN_OVER = ["task.started.v1", "task.attempt_failed.v1", "task.started.v1", "snapshot.created.v1"]


async def filled(platform: Platform) -> UUID:
    """An active workspace with something to clone, made by an executor that has ended."""
    async with platform.running():
        workspace_id = await platform.create()
    platform.fill(workspace_id, 50)
    return workspace_id


async def mid_clone(platform: Platform, workspace_id: UUID) -> None:
    """Waits until files are in the new tree and the clone has not ended."""
    trees = platform.home(workspace_id) / "trees"

    async def begun() -> bool:
        return len(list(trees.glob("*/root/00049"))) == 1

    await eventually(begun)


async def volume_of(platform: Platform, workspace_id: UUID) -> tuple[object, ...]:
    """Everything that a stale holder must not change: log, lane, link, directories."""
    lane = await platform.pool.fetchval("SELECT to_jsonb(l) FROM wvs.lanes l WHERE workspace_id = $1", workspace_id)
    return (
        await platform.events(workspace_id),
        lane,
        platform.live_tree(workspace_id),
        platform.trees(workspace_id),
        platform.trees(workspace_id, "trash"),
    )


async def test_a_killed_executor_is_replaced_in_about_a_second(platform: Platform, executors: Executors) -> None:
    workspace_id = await filled(platform)
    first = executors.start(failpoints="create.cloning=sleep:30")
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    await mid_clone(platform, workspace_id)
    metrics = Metrics()
    async with platform.running(metrics):
        await asyncio.sleep(0.3)
        killed_at = time.monotonic()
        first.kill()
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        seconds = time.monotonic() - killed_at
        await platform.until_swept(workspace_id)
    assert seconds < 3, "about a second, and a little for a busy machine"
    assert (await platform.events(workspace_id))[-4:] == TAKEN_OVER
    assert (await platform.task_row(task_id))["attempt"] == 2
    assert value(metrics, "wvs_lease_lost_total") == 1
    assert value(metrics, "wvs_task_attempts_total", kind="snapshot_create", outcome="retried") == 1
    assert value(metrics, "wvs_task_attempts_total", kind="snapshot_create", outcome="succeeded") == 1
    assert value(metrics, "wvs_sweeper_trees_total", action="retired") == 1
    assert value(metrics, "wvs_sweeper_trees_total", action="purged") == 1


async def test_the_taken_over_attempt_ends_with_lease_lost(platform: Platform, executors: Executors) -> None:
    workspace_id = await filled(platform)
    for attempt in range(4):
        process = executors.start(failpoints="create.cloned=kill")
        if attempt == 0:
            _, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await process.ended() == -9
    executors.start()
    assert await platform.wait(workspace_id, task_id) is TaskState.FAILED, "four attempts are the most"
    error = await platform.error(task_id)
    assert error.code is ErrorCode.LEASE_LOST
    assert error.hint
    await platform.until_swept(workspace_id)


@pytest.mark.parametrize("place", ["create.tree_intended", "create.cloned", "create.sealed", "create.started"])
async def test_a_stopped_executor_is_replaced_past_its_lease_and_changes_nothing_when_it_resumes(
    platform: Platform, executors: Executors, place: str
) -> None:
    workspace_id = await filled(platform)
    first = executors.start(failpoints=f"{place}=stop@1")
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    await first.until_stopped()
    stopped_at = time.monotonic()
    second = executors.start()
    assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    assert time.monotonic() - stopped_at > 1, "not before its lease was over"
    assert (await second.logged("lane_reaped"))["reason"] == "lease_over"
    await platform.until_swept(workspace_id)
    before = await volume_of(platform, workspace_id)

    first.go_on()
    await first.logged("claim_was_stale")
    await platform.until_swept(workspace_id)
    assert await volume_of(platform, workspace_id) == before
    assert first.alive, "the executor continues with other work"
    await works(platform, first, second, workspace_id)


async def works(platform: Platform, first: ExecutorProcess, second: ExecutorProcess, workspace_id: UUID) -> None:
    """The executor that was stale runs tasks again."""
    second.kill()
    before = len(first.lines("task_succeeded"))
    await platform.ready_snapshot(workspace_id)
    assert len(first.lines("task_succeeded")) == before + 1


async def test_an_executor_cut_off_from_its_database_commits_nothing_and_comes_back(
    platform: Platform, executors: Executors
) -> None:
    workspace_id = await filled(platform)
    async with TcpProxy(platform.url).running() as proxy:
        first = executors.start(failpoints="create.cloning=sleep:1.5", database_url=proxy.url)
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        await mid_clone(platform, workspace_id)
        proxy.cut()
        metrics = Metrics()
        async with platform.running(metrics):
            assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
            await first.logged("lease_lost")
            await first.logged("slot_lost_its_connection")
            await platform.until_swept(workspace_id)
            before = await volume_of(platform, workspace_id)
            proxy.restore()
            await asyncio.sleep(2)
            assert await volume_of(platform, workspace_id) == before
        assert (await platform.events(workspace_id))[-4:] == TAKEN_OVER
        assert value(metrics, "wvs_lease_lost_total") == 1
        await platform.ready_snapshot(workspace_id)


async def test_an_event_loop_that_hangs_past_the_lease_loses_its_task(platform: Platform, executors: Executors) -> None:
    workspace_id = await filled(platform)
    first = executors.start(failpoints="create.cloned=sleep:4")
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    await first.logged("task_started")
    second = executors.start()
    assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    assert second.lines("task_taken_over")
    await first.logged("claim_was_stale")
    await platform.until_swept(workspace_id)
    assert (await platform.events(workspace_id))[-4:] == TAKEN_OVER


async def test_a_clone_that_takes_longer_than_the_lease_is_not_taken_over(
    platform: Platform, executors: Executors
) -> None:
    workspace_id = await filled(platform)
    first = executors.start(failpoints="create.cloning=sleep:3.5")
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    await first.logged("task_started")
    second = executors.start()
    assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    assert (await platform.events(workspace_id))[-2:] == ["task.started.v1", "snapshot.created.v1"]
    assert second.lines("lane_reaped") == []


async def test_work_after_the_commit_does_not_count_as_a_lost_lease(platform: Platform) -> None:
    """The executor moves the link and removes a tree after the task has left the lane, and renews all the while."""
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
        failpoints.arm("create.cloned=error,discard.retired=sleep:0.8")
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        await platform.until(workspace_id, task_id, TaskState.QUEUED)
        failpoints.arm("")
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    assert value(metrics, "wvs_lease_lost_total") == 0
    assert value(metrics, "wvs_fence_rejections_total") == 0


async def test_a_damaged_workspace_does_not_end_the_executor(platform: Platform) -> None:
    metrics = Metrics()
    async with platform.running(metrics) as executor:
        damaged = await platform.create()
        healthy = await platform.create()
        await platform.pool.execute(
            "UPDATE wvs.events SET topic = 'nobody.knows.v1' WHERE originator_id = $1 AND originator_version = 1",
            damaged,
        )
        executor._slots[0]._bench.path.aggregates.forget(damaged)
        await platform.ask_for_snapshot(damaged)

        async def parked() -> bool:
            return value(metrics, "wvs_ignored_failures_total", where="claim") == 1

        await eventually(parked)
        assert (await platform.snapshot(healthy))[1] is TaskState.SUCCEEDED
        await asyncio.sleep(1.5)
        assert value(metrics, "wvs_ignored_failures_total", where="claim") == 1, "it is left alone for a while"


async def test_a_holder_that_learns_of_a_newer_claim_stops_and_is_counted(platform: Platform) -> None:
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
        failpoints.arm("create.cloning=sleep:1.2@1")
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        await platform.until(workspace_id, task_id, TaskState.RUNNING)
        await platform.pool.execute("UPDATE wvs.lanes SET fence = fence + 1 WHERE workspace_id = $1", workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)
    assert (await platform.events(workspace_id))[-4:] == TAKEN_OVER
    assert value(metrics, "wvs_fence_rejections_total") >= 1
    assert value(metrics, "wvs_lease_lost_total") >= 1
