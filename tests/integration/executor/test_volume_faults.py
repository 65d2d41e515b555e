"""Tasks on a volume that fails: the code, the hint, the freed space, and the recovery."""

import asyncio
import os
import shutil
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.integration.executor.platform import Platform, eventually, make_volume, value

from wvs import failpoints
from wvs.domain.commands import RetryTask
from wvs.domain.errors import ErrorCode
from wvs.domain.ids import SNAPSHOT, format_id
from wvs.domain.policy import RETRY
from wvs.domain.states import SnapshotState, TaskKind, TaskState
from wvs.engines.volume.opening import init_volume, open_volume
from wvs.executor import volume_sweep
from wvs.postgres.reserve import disk_of
from wvs.telemetry.metrics import Metrics


@pytest.fixture
def small(namespace: Namespace, platform: Platform, request: pytest.FixtureRequest) -> Path:
    """The platform's volume on a small filesystem of its own; executors of this process only can see it."""
    try:
        point = filesystems.ext4(namespace, name=f"small-{abs(hash(request.node.name)) % 10**6}", size_mb=64)
    except Unavailable as error:
        pytest.skip(str(error))
    (point / "lost+found").rmdir()
    platform.volume = make_volume(point)
    return point


def remount(point: Path, options: str) -> None:
    filesystems.run_when_free("mount", "-o", f"remount,{options}", point)


async def snapshot_state(platform: Platform, workspace_id: UUID, snapshot_id: UUID) -> SnapshotState:
    return (await platform.workspace(workspace_id)).snapshots[snapshot_id].state


async def test_an_init_waits_for_a_volume_that_is_read_only(platform: Platform, small: Path) -> None:
    metrics = Metrics()
    async with platform.running(metrics):
        await platform.create()
        remount(small, "ro")
        workspace_id, task_id = await platform.ask_for_workspace()

        async def attempts() -> int:
            return (await platform.events(workspace_id)).count("task.attempt_failed.v1")

        async def more_than_the_kind_has() -> bool:
            return await attempts() > RETRY[TaskKind.WORKSPACE_INIT].max_attempts

        await eventually(more_than_the_kind_has)
        error = await platform.error(task_id)
        assert error.code is ErrorCode.VOLUME_UNAVAILABLE
        assert "EROFS" in error.detail
        assert error.hint
        remount(small, "rw")
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        (platform.live(workspace_id) / "x").write_text("x")
        await platform.ready_snapshot(workspace_id)
        await platform.until_swept(workspace_id)
    waited = value(metrics, "wvs_task_attempts_total", kind="workspace_init", outcome="waiting")
    assert waited == await attempts()


async def test_a_full_volume_fails_the_snapshot_frees_its_space_and_works_again(
    platform: Platform, small: Path
) -> None:
    volume = open_volume(str(small))
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "big").write_bytes(bytes(range(256)) * (18 << 12))
        first = await platform.ready_snapshot(workspace_id)
        free = volume.space().free
        second, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        error = await platform.error(task_id)
        assert (error.code, bool(error.hint)) == (ErrorCode.VOLUME_FULL, True)
        assert await snapshot_state(platform, workspace_id, second) is SnapshotState.FAILED
        await platform.until_swept(workspace_id)
        assert volume.space().free > free - (1 << 20)

        (platform.live(workspace_id) / "small").write_text("still writable")
        assert await platform.drop(workspace_id, first) is TaskState.SUCCEEDED
        await platform.execute(workspace_id, RetryTask(task_id))
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)
    assert value(metrics, "wvs_task_attempts_total", kind="snapshot_create", outcome="failed") == 1


async def test_a_missing_live_tree_names_the_command_that_helps_and_a_reset_recreates_it(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        snapshot_id = await platform.ready_snapshot(workspace_id)
        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        shutil.rmtree(platform.home(workspace_id) / "live")

        _, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        error = await platform.error(task_id)
        assert error.code is ErrorCode.TREE_MISSING
        assert "--reset" in error.hint
        assert (await platform.task_row(task_id))["attempt"] == 1, "waiting brings no tree back"

        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        assert not platform.live(workspace_id).exists(), "a no-op, as it is current already"
        assert await platform.set_current(workspace_id, snapshot_id, reset=True) is TaskState.SUCCEEDED
        assert (platform.live(workspace_id) / "a").read_text() == "one"
        await platform.until_swept(workspace_id)
        await platform.ready_snapshot(workspace_id)


async def test_a_snapshot_without_its_directory_is_lost_when_it_is_to_become_current(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        snapshot_id = await platform.ready_snapshot(workspace_id)
        live = platform.live_tree(workspace_id)
        tree = (await platform.workspace(workspace_id)).snapshots[snapshot_id].tree
        shutil.rmtree(platform.home(workspace_id) / "trees" / str(tree))

        task_id = await platform.ask_for_current(workspace_id, snapshot_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        assert (await platform.error(task_id)).code is ErrorCode.TREE_MISSING
        assert await snapshot_state(platform, workspace_id, snapshot_id) is SnapshotState.LOST
        assert platform.live_tree(workspace_id) == live
        assert (platform.live(workspace_id) / "a").read_text() == "one"

        await platform.cancel(workspace_id, task_id)
        assert await platform.drop(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)


async def test_a_tree_written_to_while_it_is_cloned_makes_no_snapshot(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        failpoints.arm("create.cloning=sleep:0.5")
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        await platform.until(workspace_id, task_id, TaskState.RUNNING)
        number = 0
        while "task.attempt_failed.v1" not in await platform.events(workspace_id):
            number += 1
            (platform.live(workspace_id) / "a").write_text(str(number))
        failpoints.arm("")
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED, "once nobody writes"
        await platform.until_swept(workspace_id)
    failed = await platform.pool.fetchval(
        "SELECT convert_from(state, 'UTF8')::jsonb #>> '{event,error,code}' FROM wvs.events "
        "WHERE originator_id = $1 AND topic = 'task.attempt_failed.v1' LIMIT 1",
        workspace_id,
    )
    assert failed == ErrorCode.TORN_CLONE


async def test_a_full_btrfs_can_be_set_back_and_says_what_else_frees_space(
    platform: Platform, namespace: Namespace
) -> None:
    try:
        point = filesystems.btrfs(namespace, name="full-btrfs", size_mb=400)
    except Unavailable as error:
        pytest.skip(str(error))
    platform.volume = point / "volume"
    init_volume(str(platform.volume), UUID(int=1), "btrfs")
    volume = open_volume(str(platform.volume))
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "base").write_text("before")
        snapshot_id = await platform.ready_snapshot(workspace_id)
        fill_to_the_last_byte(platform.live(workspace_id) / "spoiled")
        assert volume.space().free < 1 << 20
        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        fill_to_the_last_byte(platform.live(workspace_id) / "spoiled")
        spoiled, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        error = await platform.error(task_id)
        assert error.code is ErrorCode.VOLUME_FULL
        assert "keeps another 1048576 bytes (1 MiB) free" in error.detail
        assert f"wvsctl current set {platform.home(workspace_id).name} SNAPSHOT --reset" in error.hint
        assert await platform.set_current(workspace_id, snapshot_id, reset=True) is TaskState.SUCCEEDED
        assert [path.name for path in platform.live(workspace_id).iterdir()] == ["base"]
        await platform.cancel(workspace_id, task_id)
        assert await platform.drop(workspace_id, spoiled) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)

        async def free_again() -> bool:
            return volume.space().free > 100 << 20

        await eventually(free_again, 60)  # the kernel frees removed subvolumes in the background


def fill_to_the_last_byte(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        size = 1 << 20
        while size >= 4096:
            try:
                file.write(os.urandom(size))
                os.fsync(file.fileno())
            except OSError:
                size //= 2


async def test_a_full_volume_names_the_snapshots_that_can_be_dropped(platform: Platform, small: Path) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        snapshots = [await platform.ready_snapshot(workspace_id) for _ in range(5)]
        assert await platform.set_current(workspace_id, snapshots[0]) is TaskState.SUCCEEDED
        (platform.live(workspace_id) / "big").write_bytes(bytes(range(256)) * (36 << 12))
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        hint = (await platform.error(task_id)).hint
        oldest = ", ".join(format_id(SNAPSHOT, snapshot) for snapshot in sorted(snapshots[1:])[:3])
        assert f"can be dropped, the oldest first: {oldest} and 1 more" in hint
        assert format_id(SNAPSHOT, snapshots[0]) not in hint, "it is current"
        assert "wvsctl snapshot drop" in hint
        assert "--reset" not in hint, "a copy needs room"

        (platform.live(workspace_id) / "big").unlink()
        only = await platform.create()
        (platform.live(only) / "big").write_bytes(bytes(range(256)) * (36 << 12))
        _, task_id = await platform.ask_for_snapshot(only)
        assert await platform.wait(only, task_id) is TaskState.FAILED
        assert "can be dropped now: look at those of other workspaces" in (await platform.error(task_id)).hint


async def test_a_volume_that_is_nearly_full_is_warned_of_once_and_counted(
    platform: Platform, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_sweep, "LOOK_EVERY_S", 0.1)
    metrics = Metrics()
    ballast = small / "ballast"

    async def used(least: float, most: float) -> None:
        async def is_seen() -> bool:
            return least <= value(metrics, "wvs_disk_used_ratio", disk="volume") < most

        await eventually(is_seen)

    with structlog.testing.capture_logs() as lines:
        async with platform.running(metrics):
            await used(0.01, 0.5)
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, int(disk_of(small).free * 0.95))
            await used(0.9, 1.01)
            await asyncio.sleep(0.5)
            ballast.unlink()
            await used(0.01, 0.5)
    said = [(line["event"], line["disk"], line["path"]) for line in lines if line["event"].startswith("disk_")]
    assert said == [
        ("disk_nearly_full", "volume", str(platform.volume)),
        ("disk_has_room_again", "volume", str(platform.volume)),
    ]
