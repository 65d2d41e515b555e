"""The four operations on real directories, by a real executor."""

import asyncio
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from tests.integration.engines.conftest import Sites
from tests.integration.executor.campaign import WITHOUT_MOUNT
from tests.integration.executor.conftest import volume_of
from tests.integration.executor.platform import Platform

from wvs.domain.states import SnapshotState, TaskState
from wvs.executor import cloning


async def test_a_workspace_is_snapshotted_set_back_and_its_snapshot_dropped(platform: Platform) -> None:
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


@pytest.mark.parametrize("kind", [WITHOUT_MOUNT, "btrfs-on-btrfs", "juicefs-on-juicefs"])
async def test_the_events_have_files_and_bytes_on_every_engine(
    platform: Platform, kind: str, sites: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with volume_of(kind, sites, tmp_path) as volume:
        platform.volume = volume
        async with platform.running():
            workspace_id = await platform.create()
            for number in range(7):
                (platform.live(workspace_id) / f"{number}").write_bytes(bytes(number))
            snapshot_id = await platform.ready_snapshot(workspace_id)
            assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
            assert await totals_shown(platform, workspace_id) == [(7, 21), (7, 21)]

            monkeypatch.setattr(cloning, "MEASURE_S", 0.0)
            await platform.ready_snapshot(workspace_id)
            walks = kind == "btrfs-on-btrfs"
            assert (await totals_shown(platform, workspace_id))[-1] == ((None, None) if walks else (7, 21))


async def totals_shown(platform: Platform, workspace_id: UUID) -> list[tuple[int | None, int | None]]:
    rows = await platform.pool.fetch(
        "SELECT convert_from(state, 'UTF8')::jsonb #> '{event,report}' AS report FROM wvs.events "
        "WHERE originator_id = $1 AND topic IN ('snapshot.created.v1', 'current.set.v1') ORDER BY originator_version",
        workspace_id,
    )
    reports = [msgspec.json.decode(row["report"]) for row in rows]
    return [(report.get("files"), report.get("bytes")) for report in reports]


async def _eventually_only(platform: Platform, workspace_id: object, names: set[str | None]) -> None:
    for _ in range(100):
        if platform.trees(workspace_id) == names and not platform.trees(workspace_id, "trash"):  # type: ignore[arg-type]
            return
        await asyncio.sleep(0.05)
    raise AssertionError(platform.trees(workspace_id))  # type: ignore[arg-type]
