"""Something else stands at a workspace's path. Nothing succeeds with other content than the path shows."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast
from uuid import UUID, uuid4

import msgspec
import pytest
from tests.integration.executor.conftest import Platform, platform
from tests.integration.executor.test_sweeper import bench

from wvs.cli.wvs.volumes import run_check
from wvs.domain.commands import RetryTask
from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import TaskKind, TaskState
from wvs.domain.values import TaskError
from wvs.executor import operations
from wvs.executor.claim_watch import ClaimWatch
from wvs.executor.cloning import ProvenClone
from wvs.executor.switching import path_replaced_by
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
        path = platform.link(workspace_id)
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
        a_directory(platform.link(job.claim.workspace_id))
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
        (platform.link(workspace_id) / "a").write_text("one")
        platform.link(workspace_id).unlink()
        _, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
        assert shown(platform.link(workspace_id)) == "one"


@STRANGERS
async def test_current_set_moves_a_stranger_to_quarantine_and_says_where(platform: Platform, replace: Replace) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        path = platform.link(workspace_id)
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


async def queued_without_effect(platform: Platform) -> tuple[UUID, UUID]:
    """A workspace, and a queued task that sets its current snapshot: a mover before it was cancelled."""
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        other, current = [await platform.ready_snapshot(workspace_id) for _ in range(2)]
        assert await platform.set_current(workspace_id, current) is TaskState.SUCCEEDED
    mover = await platform.ask_for_current(workspace_id, other)
    task_id = await platform.ask_for_current(workspace_id, current)
    await platform.cancel(workspace_id, mover)
    return workspace_id, task_id


@STRANGERS
async def test_a_task_that_would_change_nothing_fails_and_leaves_a_stranger_where_it_is(
    platform: Platform, replace: Replace
) -> None:
    workspace_id, task_id = await queued_without_effect(platform)
    path = platform.link(workspace_id)
    replace(path)
    async with platform.running():
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        error = await platform.error(task_id)
        assert (error.code, error.retryable) == (ErrorCode.PATH_REPLACED, False)
        assert "wvs volume check --repair" in error.hint
        assert shown(path) == "precious"
        assert await noted(platform, workspace_id) is not None
        path.rename(path.parent.parent / "kept")
        path.symlink_to("live/root")
        await platform.execute(workspace_id, RetryTask(task_id))
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        assert (await platform.task_row(task_id))["noop"]


@pytest.mark.parametrize("overdue", [False, True], ids=["away", "hung"])
async def test_where_no_look_at_the_path_is_possible_the_last_note_counts(
    platform: Platform, bench: Workbench, overdue: bool
) -> None:
    workspace_id, task_id = await queued_without_effect(platform)
    claim = Claim(workspace_id, 1, 1, task_id, TaskKind.CURRENT_SET, overdue, overdue, False, None, None, None, 0.0)
    job = Job(bench, claim, ClaimWatch(cast("Connection", None), claim, 30, 10, bench.metrics))
    home = platform.home(workspace_id)
    if overdue:  # a look would find the right link, and end at once, unlike that of the holder that hung
        assert platform.link(workspace_id).is_symlink()
    else:
        home.rename(home.parent / "away")
    assert await path_replaced_by(job) is None
    await platform.pool.execute("UPDATE wvs.lanes SET path_replaced_by = 'a directory'")
    assert await path_replaced_by(job) == "a directory"


async def test_an_attempt_whose_lease_was_lost_leaves_the_link_at_the_newest_live_tree(
    platform: Platform, bench: Workbench
) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        before = platform.live_tree(workspace_id)
        snapshot_id, _ = await platform.snapshot(workspace_id)
        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
    newest = platform.live_tree(workspace_id)
    a_directory(platform.link(workspace_id))
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
        path = platform.link(workspace_id)
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
    assert finding.action is Action.PATH_REPLACED
    (kept,) = quarantined(platform, workspace_id)
    assert shown(kept) == "precious"
    assert await sweep_volume(bench) == []
    assert shown(path) == "one"
    assert await noted(platform, workspace_id) is None
    async with platform.running():
        _, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED


def quarantined(platform: Platform, workspace_id: UUID) -> list[Path]:
    return sorted((platform.volume / ".wvs/quarantine" / format_id(WORKSPACE, workspace_id)).iterdir())


async def checked(platform: Platform, capsys: pytest.CaptureFixture[str], *, repair: bool) -> list[str]:
    """What `wvs volume check` prints, without the lines of the log."""
    settings = msgspec.structs.replace(platform.settings_with_volume(), database_url=platform.url)
    capsys.readouterr()
    await asyncio.to_thread(run_check, settings, repair=repair)
    return [line for line in capsys.readouterr().out.splitlines() if not line[:4].isdigit()]


async def test_a_check_reports_a_replaced_path_once_and_a_repair_says_where_all_lies_now(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where both the link and the live directory were replaced."""
    async with platform.running():
        workspace_id = await platform.create()
    home, tree = platform.home(workspace_id), platform.live_tree(workspace_id)
    (home / "live").rename(home / "trees" / tree)
    a_directory(home / "live")
    a_file(home / "current")
    seen = f"{home.name} {tree}: something else is in the place of the live tree or of the link to it (a file"
    assert await checked(platform, capsys, repair=False) == [
        f"{seen})",
        "findings: 1; to repair them as far as possible: wvs volume check --repair",
    ]
    printed = await checked(platform, capsys, repair=True)
    link, live = quarantined(platform, workspace_id)
    assert (link.name, live.name) == ("0-current", "1-live")
    assert printed == [
        f"{seen}; moved to {link} and {live}; the live tree is at its path)",
        "findings: 1; repaired as far as possible",
    ]
    assert await checked(platform, capsys, repair=True) == ["the volume matches the log"]
    assert platform.live_tree(workspace_id) == tree


async def test_a_repair_that_finds_no_live_tree_says_where_the_stranger_lies_now(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    async with platform.running():
        workspace_id = await platform.create()
    home = platform.home(workspace_id)
    shutil.rmtree(home / "live")
    a_directory(home / "live")
    missing, replaced, _ = await checked(platform, capsys, repair=True)
    (live,) = quarantined(platform, workspace_id)
    assert "the live tree is missing" in missing
    assert f"moved to {live}; the live tree is not at its path: " in replaced
    assert "--reset" in replaced


async def refusal(platform: Platform, workspace_id: UUID) -> TaskError:
    """Why a snapshot is refused: at the first attempt, and before any agent is frozen."""
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
    assert await platform.pool.fetchval("SELECT freezes FROM wvs.lanes WHERE workspace_id = $1", workspace_id) == 0
    error = await platform.error(task_id)
    assert not error.retryable
    return error


@pytest.mark.parametrize("content", [None, "", "01h455vb4pex5vsknk084sn02q.7"], ids=["no", "empty", "another"])
async def test_without_the_right_name_beside_the_root_nobody_is_told_to_recreate_the_tree_first(
    platform: Platform, content: str | None
) -> None:
    """The files are all there: a reset would replace them with those of a snapshot."""
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        name = platform.home(workspace_id) / "live" / "name"
        right = name.read_text().strip()
        name.unlink()
        if content is not None:
            name.write_text(content)
        error = await refusal(platform, workspace_id)
        assert f"write {right} into {name} again" in error.hint
        name.write_text(right)
        assert (await platform.snapshot(workspace_id))[1] is TaskState.SUCCEEDED


async def test_a_root_that_is_no_directory_is_refused_before_anybody_is_frozen(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        root = platform.live(workspace_id)
        root.rename(root.parent / "aside")
        root.symlink_to("aside")
        error = await refusal(platform, workspace_id)
        assert (error.code, error.detail) == (
            ErrorCode.PATH_REPLACED,
            f"{root} is a link, not a directory: somebody replaced it.",
        )


async def test_a_live_tree_that_was_moved_away_can_be_moved_back(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        live = platform.home(workspace_id) / "live"
        live.rename(live.parent / "x")
        error = await refusal(platform, workspace_id)
        assert f"If somebody moved it, move it back to {live}." in error.hint
        (live.parent / "x").rename(live)
        assert (await platform.snapshot(workspace_id))[1] is TaskState.SUCCEEDED


async def test_a_copy_of_the_live_tree_among_the_trees_is_not_what_a_snapshot_holds(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        home = platform.home(workspace_id)
        (platform.live(workspace_id) / "a").write_text("old")
        shutil.copytree(home / "live", home / "trees" / (home / "live" / "name").read_text().strip())
        (platform.live(workspace_id) / "a").write_text("what the path shows")
        snapshot_id = await platform.ready_snapshot(workspace_id)
        tree = (await platform.workspace(workspace_id)).snapshots[snapshot_id].tree
        assert shown(home / "trees" / str(tree) / "root") == "what the path shows"


async def test_a_drop_moves_no_other_tree_that_somebody_gave_its_name(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        snapshots = [await platform.ready_snapshot(workspace_id) for _ in range(2)]
        workspace = await platform.workspace(workspace_id)
        trees = platform.home(workspace_id) / "trees"
        one, two = (trees / str(workspace.snapshots[each].tree) for each in snapshots)
        one.rename(trees / "aside")
        two.rename(one)
        task_id = await platform.ask_for_drop(workspace_id, snapshots[0])
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        error = await platform.error(task_id)
        assert (error.code, error.retryable) == (ErrorCode.REMOVE_FAILED, False)
        assert f"holds the tree {two.name}" in error.detail
        assert shown(one / "root") == shown(trees / "aside" / "root") == "one"
