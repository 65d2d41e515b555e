"""The four operations on real directories, by a real executor."""

import asyncio
from typing import TYPE_CHECKING

from wvs.domain.states import SnapshotState, TaskState

if TYPE_CHECKING:
    from tests.integration.executor.conftest import Platform


async def test_a_workspace_is_snapshotted_set_back_and_its_snapshot_dropped(platform: "Platform") -> None:
    async with platform.running():
        workspace_id = await platform.create()
        live = platform.live(workspace_id)
        (live / "a.txt").write_text("one")
        first, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED

        (live / "a.txt").write_text("two")
        (live / "b.txt").write_text("new")
        second, _ = await platform.snapshot(workspace_id)
        assert await platform.set_current(workspace_id, first) is TaskState.SUCCEEDED
        assert (live / "a.txt").read_text() == "one"
        assert not (live / "b.txt").exists()

        assert await platform.set_current(workspace_id, second) is TaskState.SUCCEEDED
        assert (live / "b.txt").read_text() == "new"
        before = await platform.path.load(workspace_id)
        assert before is not None
        dropped_tree = before.snapshots[first].tree
        assert await platform.drop(workspace_id, first) is TaskState.SUCCEEDED

        after = await platform.path.load(workspace_id)
        assert after is not None
        assert after.snapshots[first].state is SnapshotState.DROPPED
        assert dropped_tree not in platform.trees(workspace_id)
    await _eventually_only(platform, workspace_id, {after.live_tree, after.snapshots[second].tree})


async def _eventually_only(platform: "Platform", workspace_id: object, names: set[str | None]) -> None:
    for _ in range(100):
        if platform.trees(workspace_id) == names and not platform.trees(workspace_id, "trash"):  # type: ignore[arg-type]
            return
        await asyncio.sleep(0.05)
    raise AssertionError(platform.trees(workspace_id))  # type: ignore[arg-type]
