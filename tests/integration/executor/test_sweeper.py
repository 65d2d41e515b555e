"""The sweeper: each action on a directory, and the directories that it leaves alone."""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec
import pytest
from tests.integration.executor.platform import Platform, eventually, value

from wvs import failpoints
from wvs.application.write_path import Origin
from wvs.domain.commands import DisableWorkspace, StartTask
from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import SnapshotState, TaskState
from wvs.domain.values import TaskError
from wvs.engines.volume import volume as volume_module
from wvs.engines.volume.identity import LogPosition
from wvs.engines.volume.opening import open_volume
from wvs.executor.volume_sweep import _keep_alive, _sweep_alone, record_seen, sweep_after_lost_claim, sweep_volume
from wvs.executor.workbench import Workbench
from wvs.executor.workspace_sweep import Action, Finding
from wvs.postgres.locks import SWEEPER
from wvs.postgres.pool import connect
from wvs.postgres.queries import sql
from wvs.telemetry.metrics import Metrics


@pytest.fixture
async def bench(platform: Platform) -> AsyncIterator[Workbench]:
    """A workbench for the sweeper, without an executor."""
    volume = open_volume(str(platform.volume))
    with ThreadPoolExecutor(2) as threads:
        yield Workbench("sweep-test", volume, platform.path, threads, platform.settings, Metrics())


async def with_abandoned(platform: Platform) -> tuple[UUID, str]:
    """A workspace and the name of a tree whose attempt failed."""
    async with platform.running():
        workspace_id = await platform.create()
        await platform.ready_snapshot(workspace_id)
        failpoints.arm("create.cloned=error@1")
        await platform.ready_snapshot(workspace_id)
        await platform.until_swept(workspace_id)
    query = "SELECT name FROM wvs.trees WHERE workspace_id = $1 AND state = 'abandoned'"
    return workspace_id, await platform.pool.fetchval(query, workspace_id)


def found(findings: list[Finding], workspace_id: UUID) -> set[tuple[Action, str]]:
    return {(f.action, f.name) for f in findings if f.workspace == format_id(WORKSPACE, workspace_id)}


def swept(bench: Workbench, action: str) -> float:
    return value(bench.metrics, "wvs_sweeper_trees_total", action=action)


async def test_a_clean_volume_has_no_findings(platform: Platform, bench: Workbench) -> None:
    await with_abandoned(platform)
    assert await sweep_volume(bench) == []


async def test_files_that_a_slow_holder_adds_to_an_abandoned_tree_are_swept_again(
    platform: Platform, bench: Workbench
) -> None:
    workspace_id, name = await with_abandoned(platform)
    for place in ("trees", "trash"):
        (platform.home(workspace_id) / place / name / "root").mkdir(parents=True)
        (platform.home(workspace_id) / place / name / "root" / "late").write_text("late")
        findings = await sweep_volume(bench)
        wanted = {(Action.RETIRED, name), (Action.PURGED, name)} if place == "trees" else {(Action.PURGED, name)}
        assert found(findings, workspace_id) == wanted
        await platform.until_swept(workspace_id)
    assert (swept(bench, "retired"), swept(bench, "purged")) == (1, 2)


async def test_nothing_is_swept_after_a_lost_claim_beside_a_restored_database(
    platform: Platform, bench: Workbench
) -> None:
    workspace_id, name = await with_abandoned(platform)
    left = platform.home(workspace_id) / "trees" / name / "root"
    left.mkdir(parents=True)
    identity = bench.volume.seen()
    later = LogPosition(1 if identity is None else identity.epoch, 10**9)
    bench.volume.record_seen(later, "00" * 32)

    await sweep_after_lost_claim(bench, workspace_id)
    assert left.is_dir()
    assert swept(bench, "retired") == 0

    await platform.pool.execute("UPDATE wvs.log_identity SET epoch = epoch + 1")  # what the runbook says
    await sweep_after_lost_claim(bench, workspace_id)
    assert not left.exists()


async def test_an_old_live_tree_is_swept(platform: Platform, bench: Workbench) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        old = platform.live_tree(workspace_id)
        snapshot_id = await platform.ready_snapshot(workspace_id)
        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)
    (platform.home(workspace_id) / "trees" / old / "root").mkdir(parents=True)
    assert found(await sweep_volume(bench), workspace_id) == {(Action.RETIRED, old), (Action.PURGED, old)}


@pytest.mark.parametrize("name", ["2k5vqf1z8d9s6tn3x0yc7bghjm.7", "by hand", "..."])
async def test_a_directory_without_intent_is_moved_aside_and_kept(
    platform: Platform, bench: Workbench, name: str
) -> None:
    workspace_id, _ = await with_abandoned(platform)
    stranger = platform.home(workspace_id) / "trees" / name
    (stranger / "root").mkdir(parents=True)
    (stranger / "root" / "precious").write_text("keep me")
    (finding,) = await sweep_volume(bench)
    assert (finding.action, finding.name) == (Action.QUARANTINED, name)
    assert (Path(finding.detail) / "root" / "precious").read_text() == "keep me"
    assert Path(finding.detail).is_relative_to(platform.volume / ".wvs" / "quarantine")
    assert not stranger.exists()
    assert swept(bench, "quarantined") == 1
    assert await sweep_volume(bench) == []
    await platform.until_swept(workspace_id)


async def test_strangers_in_the_trash_are_left_alone(platform: Platform, bench: Workbench) -> None:
    workspace_id, _ = await with_abandoned(platform)
    trash = platform.home(workspace_id) / "trash"
    for name in ("2k5vqf1z8d9s6tn3x0yc7bghjm.7", "by hand"):
        (trash / name).mkdir()
    await sweep_volume(bench)
    assert platform.trees(workspace_id, "trash") == {"2k5vqf1z8d9s6tn3x0yc7bghjm.7", "by hand"}


async def test_a_tree_that_a_running_attempt_intends_is_left_alone(platform: Platform, bench: Workbench) -> None:
    async with platform.running():
        workspace_id = await platform.create()
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    name = platform.tree_of(task_id, 9)
    lost = TaskError(ErrorCode.LEASE_LOST, "gone", retryable=True)
    await platform.execute(workspace_id, StartTask(task_id, 9, "somebody", name, datetime.now(UTC), lost))
    (platform.home(workspace_id) / "trees" / name / "root").mkdir(parents=True)
    assert await sweep_volume(bench) == []
    assert name in platform.trees(workspace_id)


@pytest.mark.parametrize("gone", ["the tree", "its root"])
async def test_a_ready_snapshot_without_its_directory_is_lost_and_can_only_be_dropped(
    platform: Platform, bench: Workbench, gone: str
) -> None:
    workspace_id, _ = await with_abandoned(platform)
    snapshot = next(iter((await platform.workspace(workspace_id)).snapshots.values()))
    assert snapshot.tree is not None
    tree = platform.home(workspace_id) / "trees" / snapshot.tree
    shutil.rmtree(tree if gone == "the tree" else tree / "root")
    assert found(await sweep_volume(bench), workspace_id) == {(Action.LOST, snapshot.tree)}
    assert (await platform.workspace(workspace_id)).snapshots[snapshot.id].state is SnapshotState.LOST
    assert (await platform.events(workspace_id))[-1] == "snapshot.lost.v1"
    assert swept(bench, "lost") == 1
    assert await sweep_volume(bench) == [], "the sweep reported the loss once"
    async with platform.running():
        assert await platform.drop(workspace_id, snapshot.id) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)


async def test_a_missing_live_tree_is_reported_with_the_command_that_helps(
    platform: Platform, bench: Workbench
) -> None:
    workspace_id, _ = await with_abandoned(platform)
    live = platform.live_tree(workspace_id)
    shutil.rmtree(platform.home(workspace_id) / "trees" / live)
    (finding,) = await sweep_volume(bench)
    assert (finding.action, finding.name) == (Action.LIVE_MISSING, live)
    assert "--reset" in finding.detail
    assert swept(bench, "live_missing") == 1


async def test_a_workspace_whose_whole_directory_is_gone_is_found(platform: Platform, bench: Workbench) -> None:
    workspace_id, _ = await with_abandoned(platform)
    workspace = await platform.workspace(workspace_id)
    shutil.rmtree(platform.home(workspace_id))
    wanted = {(Action.LOST, str(s.tree)) for s in workspace.snapshots.values()}
    wanted.add((Action.LIVE_MISSING, str(workspace.live_tree)))
    assert found(await sweep_volume(bench), workspace_id) == wanted


@pytest.mark.parametrize("link", ["missing", "other tree"])
async def test_the_link_is_corrected(platform: Platform, bench: Workbench, link: str) -> None:
    workspace_id, _ = await with_abandoned(platform)
    current = platform.live(workspace_id)
    right = current.readlink()
    current.unlink()
    if link != "missing":
        others = sorted(platform.trees(workspace_id) - {right.parts[1]})
        current.symlink_to(f"trees/{others[0]}/root")
    assert found(await sweep_volume(bench), workspace_id) == {(Action.LINKED, "current")}
    assert current.readlink() == right
    assert swept(bench, "linked") == 1


async def test_a_look_without_repair_changes_nothing_and_finds_the_same(platform: Platform, bench: Workbench) -> None:
    workspace_id, name = await with_abandoned(platform)
    home = platform.home(workspace_id)
    (home / "trees" / name / "root").mkdir(parents=True)
    (home / "trees" / "by hand").mkdir()
    snapshot = next(iter((await platform.workspace(workspace_id)).snapshots.values()))
    shutil.rmtree(home / "trees" / str(snapshot.tree))
    (home / "current").unlink()
    before = (sorted(p.relative_to(home) for p in home.rglob("*")), await platform.events(workspace_id))
    looked = await sweep_volume(bench, repair=False)
    assert (sorted(p.relative_to(home) for p in home.rglob("*")), await platform.events(workspace_id)) == before
    repaired = await sweep_volume(bench)
    actions = {Action.RETIRED, Action.QUARANTINED, Action.LOST, Action.LINKED}
    assert {f.action for f in looked} == actions
    assert {f.action for f in repaired} == actions | {Action.PURGED}, "what was retired a moment ago"


async def test_a_workspace_that_cannot_be_swept_delays_no_other(platform: Platform, bench: Workbench) -> None:
    one, _ = await with_abandoned(platform)
    two, _ = await with_abandoned(platform)
    broken, other = sorted((one, two))
    shutil.rmtree(platform.home(broken) / "trees")
    (platform.home(broken) / "trees").write_text("no directory")
    (platform.home(other) / "trees" / "by hand").mkdir()
    findings = await sweep_volume(bench)
    assert {a for a, _ in found(findings, broken)} == {Action.UNREADABLE}
    assert found(findings, other) == {(Action.QUARANTINED, "by hand")}
    assert value(bench.metrics, "wvs_ignored_failures_total", where="sweep") == 1


async def test_an_executor_sweeps_by_itself_and_records_the_logs_position_on_the_volume(platform: Platform) -> None:
    workspace_id, name = await with_abandoned(platform)
    (platform.home(workspace_id) / "trees" / name / "root").mkdir(parents=True)
    (platform.home(workspace_id) / "trees" / "by hand").mkdir()
    metrics = Metrics()
    async with platform.running(metrics):
        await platform.until_swept(workspace_id)
    assert value(metrics, "wvs_sweeper_trees_total", action="quarantined") == 1
    assert value(metrics, "wvs_volume_free_bytes") > 0
    seen = open_volume(str(platform.volume)).seen()
    assert seen is not None
    assert seen.position >= await platform.pool.fetchval("SELECT max(notification_id) FROM wvs.events") - 1


async def test_a_full_volume_without_room_for_the_position_is_swept(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace_id, name = await with_abandoned(platform)
    (platform.home(workspace_id) / "trees" / name / "root").mkdir(parents=True)
    await platform.path.execute(
        workspace_id,
        DisableWorkspace("moves the log on"),
        at=datetime.now(UTC),
        origin=Origin(actor="a", request_id="r"),
    )

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(volume_module, "write_identity", full)
    metrics = Metrics()
    async with platform.running(metrics):
        await platform.until_swept(workspace_id)
    assert value(metrics, "wvs_sweeper_trees_total", action="purged") == 1
    assert value(metrics, "wvs_ignored_failures_total", where="sweep") > 0


async def test_the_position_that_a_volume_has_seen_comes_with_its_events_hash(
    platform: Platform, bench: Workbench
) -> None:
    await with_abandoned(platform)
    await record_seen(bench)
    seen = bench.volume.seen_event()
    assert seen is not None
    row = await platform.pool.fetchrow(
        "SELECT notification_id, encode(hash, 'hex') AS hash FROM wvs.events ORDER BY 1 DESC LIMIT 1"
    )
    assert row is not None
    assert (seen[0].position, seen[1]) == (row["notification_id"], row["hash"])


async def test_one_sweeper_works_at_a_time_and_one_that_hangs_is_cut_off(platform: Platform, bench: Workbench) -> None:
    quick = msgspec.structs.replace(bench.settings, lease_s=0.6, lease_renew_s=0.1)
    bench = msgspec.structs.replace(bench, settings=quick)
    await with_abandoned(platform)
    holder = await connect(platform.url, application_name="other sweeper")
    assert await holder.fetchval(sql("try_session_lock"), SWEEPER, 0)
    living = asyncio.create_task(_keep_alive(holder, 0.1))
    await asyncio.sleep(0.8)
    assert await _sweep_alone(bench, platform.url) is False
    assert not holder.is_closed(), "it shows life"
    living.cancel()

    async def swept_at_last() -> bool:
        return await _sweep_alone(bench, platform.url)

    await eventually(swept_at_last)
    assert value(bench.metrics, "wvs_lease_lost_total") == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await holder.fetchval("SELECT 1")
