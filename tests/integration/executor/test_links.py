"""The stable link `current`: in the end it names the tree that Postgres names, whichever executor died or was late."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from tests.integration.executor.platform import LINK_IS_PENDING, Platform, eventually, value
from tests.integration.executor.processes import Executors

from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import TaskState
from wvs.engines.volume.opening import open_volume
from wvs.telemetry.metrics import Metrics


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
    first = executors.start(failpoints="link.asked=stop@1")
    await platform.ask_for_current(workspace_id, snapshot_id)
    await first.until_stopped()
    async with platform.running():
        await eventually(lambda: follows(platform, workspace_id))
        first.go_on()
        await platform.until_swept(workspace_id)


async def test_a_mover_that_comes_late_ends_with_the_right_link(platform: Platform, executors: Executors) -> None:
    """It read the name of an older live tree, slept for two moves, and then renames: no fence can stop a rename."""
    workspace_id, (one, two) = await with_snapshots(platform, 2)
    late = executors.start(failpoints="link.asked=stop@1")
    await platform.ask_for_current(workspace_id, one)
    await late.until_stopped()
    async with platform.running():
        assert await platform.set_current(workspace_id, two) is TaskState.SUCCEEDED
        assert await platform.set_current(workspace_id, one) is TaskState.SUCCEEDED
        moved_at = platform.live(workspace_id).lstat().st_ino
        late.go_on()

        async def link_was_renamed() -> bool:
            return platform.live(workspace_id).lstat().st_ino != moved_at

        await eventually(link_was_renamed)
        await eventually(lambda: follows(platform, workspace_id))
        await platform.until_swept(workspace_id)
        assert (platform.live(workspace_id)).is_dir()


async def test_a_link_that_cannot_be_moved_is_moved_when_it_can_and_no_snapshot_succeeds_before(
    platform: Platform,
) -> None:
    """The path shows the old tree until then: a snapshot of the new one would hold other files than the path shows."""
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
        snapshot_id = await platform.ready_snapshot(workspace_id)
        in_the_way = platform.home(workspace_id) / ".current.new"
        in_the_way.mkdir()
        task_id = await platform.ask_for_current(workspace_id, snapshot_id)
        await platform.until(workspace_id, task_id, TaskState.SUCCEEDED)
        _, next_task = await platform.ask_for_snapshot(workspace_id)

        async def attempt_failed() -> bool:
            return "task.attempt_failed.v1" in await platform.events(workspace_id)

        await eventually(attempt_failed)
        assert await platform.pool.fetchval(LINK_IS_PENDING, workspace_id)
        assert value(metrics, "wvs_ignored_failures_total", where="link") >= 1
        assert value(metrics, "wvs_task_attempts_total", kind="current_set", outcome="succeeded") == 1
        in_the_way.rmdir()
        await eventually(lambda: follows(platform, workspace_id))
        await platform.until(workspace_id, next_task, TaskState.SUCCEEDED)


async def test_many_movers_at_once_leave_a_whole_link(platform: Platform) -> None:
    workspace_id, _ = await with_snapshots(platform)
    name = format_id(WORKSPACE, workspace_id)
    volume = open_volume(str(platform.volume))
    trees = sorted(platform.trees(workspace_id))

    def move(number: int) -> None:
        volume.set_link(name, trees[number % 2])
        assert volume.linked_tree(name) in trees

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(move, range(200)))
    names = {p.name for p in platform.home(workspace_id).iterdir()}
    assert names <= {"current", "trees", "trash", ".current.new"}
