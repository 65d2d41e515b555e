"""Something else stands at a workspace's path. Nothing succeeds with other content than the path shows."""

from collections.abc import Callable
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

import pytest
from tests.integration.executor.conftest import Platform, platform
from tests.integration.executor.test_sweeper import bench

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import TaskKind, TaskState
from wvs.executor import operations
from wvs.executor.claim_watch import ClaimWatch
from wvs.executor.cloning import ProvenClone
from wvs.executor.volume_sweep import sweep_volume
from wvs.executor.workbench import Job, Workbench
from wvs.executor.workspace_sweep import Action
from wvs.postgres.pool import Connection
from wvs.projections.readers import Readers
from wvs.queue.lanes import Claim

__all__ = ["bench", "platform"]


def a_directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "a").write_text("precious")


def a_file(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.write_text("precious")


def a_link(path: Path) -> None:
    other = path.parent.parent / "elsewhere"
    other.mkdir()
    (other / "a").write_text("precious")
    path.unlink(missing_ok=True)
    path.symlink_to(other)


STRANGERS = pytest.mark.parametrize("replace", [a_directory, a_file, a_link])
Replace = Callable[[Path], None]


def shown(path: Path) -> str:
    return (path / "a" if path.is_dir() else path).read_text()


async def noted(platform: Platform, workspace_id: UUID) -> str | None:
    """What `wvsctl workspace get` reports of the path."""
    row = await Readers(platform.pool).workspace(workspace_id)
    assert row is not None
    return row.path_replaced_by


@STRANGERS
async def test_a_snapshot_of_a_replaced_path_is_refused_and_nothing_is_moved(
    platform: Platform, replace: Replace
) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        path = platform.live(workspace_id)
        (path / "a").write_text("old")
        trees = platform.trees(workspace_id)
        replace(path)
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        error = await platform.error(task_id)
        assert (error.code, error.retryable) == (ErrorCode.PATH_REPLACED, False)
        assert str(path) in error.detail
        assert "wvs volume check --repair" in error.hint
        assert shown(path) == "precious"
        assert platform.trees(workspace_id) == trees
        assert await noted(platform, workspace_id) is not None


async def test_a_path_that_is_replaced_during_the_clone_discards_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = operations.clone_proven

    async def clone(job: Job, source: str, point: str) -> ProvenClone:
        result = await real(job, source, point)
        a_directory(platform.live(job.claim.workspace_id))
        return result

    async with platform.running():
        workspace_id = await platform.create()
        monkeypatch.setattr(operations, "clone_proven", clone)
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        assert (await platform.error(task_id)).code is ErrorCode.PATH_REPLACED


async def test_a_snapshot_makes_a_missing_link_again(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        platform.live(workspace_id).unlink()
        _, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
        assert shown(platform.live(workspace_id)) == "one"


@STRANGERS
async def test_current_set_moves_a_stranger_to_quarantine_and_says_where(platform: Platform, replace: Replace) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        path = platform.live(workspace_id)
        (path / "a").write_text("one")
        snapshot_id, _ = await platform.snapshot(workspace_id)
        replace(path)
        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        assert shown(path) == "one"
    query = "SELECT convert_from(state, 'UTF8')::jsonb #>> '{event,report,notes,0}' FROM wvs.events WHERE topic = $1"
    note = await platform.pool.fetchval(query, "current.set.v1")
    (kept,) = (platform.volume / ".wvs/quarantine" / format_id(WORKSPACE, workspace_id)).iterdir()
    assert note.endswith(f"moved to {kept}")
    assert shown(kept) == "precious"


async def test_an_attempt_whose_lease_was_lost_leaves_the_link_at_the_newest_live_tree(
    platform: Platform, bench: Workbench
) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        before = platform.live_tree(workspace_id)
        snapshot_id, _ = await platform.snapshot(workspace_id)
        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
    newest = platform.live_tree(workspace_id)
    a_directory(platform.live(workspace_id))
    claim = Claim(workspace_id, 1, 1, uuid4(), TaskKind.CURRENT_SET, False, False, False, None, None, None, 0.0)
    job = Job(bench, claim, ClaimWatch(cast("Connection", None), claim, 30, 10, bench.metrics))
    assert await operations._clear_path(job, before)
    assert platform.live_tree(workspace_id) == newest


@STRANGERS
async def test_the_sweeper_reports_a_stranger_and_repair_moves_it(
    platform: Platform, bench: Workbench, replace: Replace
) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        path = platform.live(workspace_id)
        (path / "a").write_text("one")
    replace(path)
    for repair in (False, True):  # a check, and the periodic sweep
        (finding,) = await sweep_volume(bench, repair=repair)
        assert finding.action is Action.PATH_REPLACED
        assert shown(path) == "precious"
        assert (await noted(platform, workspace_id) is not None) == repair
    trash = path.parent / "trash"
    trash.rename(path.parent / "away")
    trash.write_text("no directory")
    (finding,) = await sweep_volume(bench)
    assert finding.action is Action.UNREADABLE
    assert await noted(platform, workspace_id) is not None, "a failed look clears nothing"
    trash.unlink()
    (path.parent / "away").rename(trash)
    (finding,) = await sweep_volume(bench, clear_paths=True)
    assert finding.action is Action.QUARANTINED
    assert shown(Path(finding.detail)) == "precious"
    assert await sweep_volume(bench) == []
    assert shown(path) == "one"
    assert await noted(platform, workspace_id) is None
    async with platform.running():
        _, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
