"""Missing and unknown trees: the log names its volume, the brake waits for a person, what returns is ready again."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from tests.integration.engines.conftest import Sites
from tests.integration.executor.campaign import BTRFS, WITHOUT_MOUNT
from tests.integration.executor.conftest import volume_of
from tests.integration.executor.platform import Platform, eventually, make_volume, value
from tests.integration.executor.processes import Executors
from tests.integration.http.api_process import ApiProcess

from wvs.domain.commands import DisableWorkspace
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import SnapshotState, TaskState
from wvs.engines.volume.opening import open_volume
from wvs.executor.volume_sweep import sweep_volume
from wvs.executor.workbench import Workbench
from wvs.executor.workspace_sweep import Action
from wvs.postgres.pool import Pool
from wvs.telemetry.metrics import Metrics


@pytest.fixture
async def bench(platform: Platform) -> AsyncIterator[Workbench]:
    with ThreadPoolExecutor(2) as threads:
        yield bench_of(platform, threads)


def bench_of(platform: Platform, threads: ThreadPoolExecutor) -> Workbench:
    volume = open_volume(str(platform.volume))
    return Workbench("loss-test", volume, platform.path, threads, platform.settings, Metrics())


def wvs(platform: Platform, *arguments: str, volume: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "WVS_DATABASE_URL": platform.url,
        "WVS_VOLUME": str(volume or platform.volume),
        "WVS_EXECUTOR_METRICS_PORT": "0",
        "WVS_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "wvs.cli.wvs", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)


async def with_snapshots(platform: Platform, count: int) -> tuple[UUID, list[UUID]]:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "file").write_text("content")
        return workspace_id, [await platform.ready_snapshot(workspace_id) for _ in range(count)]


async def states(platform: Platform, workspace_id: UUID) -> set[SnapshotState]:
    return {snapshot.state for snapshot in (await platform.workspace(workspace_id)).snapshots.values()}


async def tree_of(platform: Platform, workspace_id: UUID, snapshot_id: UUID) -> Path:
    tree = (await platform.workspace(workspace_id)).snapshots[snapshot_id].tree
    return platform.home(workspace_id) / "trees" / str(tree)


def volume_id(volume: Path) -> UUID:
    return open_volume(str(volume)).identity.id


async def test_the_executor_of_another_volume_is_refused_with_both_names_and_the_way_out(
    platform: Platform, executors: Executors, tmp_path: Path
) -> None:
    workspace_id, _ = await with_snapshots(platform, 3)
    other = make_volume(tmp_path / "other")

    refused = executors.start(volume=str(other))
    assert await refused.ended() == 2, "a bad setting, not a failure that a restart cures"
    told = refused.log.read_text()
    for name in (volume_id(platform.volume), platform.volume, volume_id(other), other, "wvs volume rebind"):
        assert str(name) in told
    checked = wvs(platform, "volume", "check", "--repair", volume=other)
    assert (checked.returncode, str(volume_id(platform.volume)) in checked.stderr) == (2, True)

    assert await states(platform, workspace_id) == {SnapshotState.READY}
    assert open_volume(str(other)).identity.system_id is None, "a refused volume is bound to nothing"
    async with platform.running():
        await platform.ready_snapshot(workspace_id)


async def test_an_api_that_assumes_another_volume_than_the_executors_warns(platform: Platform, tmp_path: Path) -> None:
    await with_snapshots(platform, 1)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "volume").symlink_to(platform.volume)
    for settings, warns in (
        ({"volume": "", "data_dir": str(tmp_path / "data")}, True),
        ({"volume": "", "data_dir": str(linked)}, False),
        ({"volume": str(tmp_path / "as-agents-see-it")}, False),
    ):
        api = ApiProcess(platform.url, tmp_path / "api.log", **settings)
        api.start()
        try:
            assert ("WVS_VOLUME of this API is not set" in readiness(api)) == warns
            assert api.metric("wvs_volume_brake") == 0
            if warns:
                assert f"the volume at {os.path.realpath(platform.volume)}" in readiness(api)
                await eventually(partial(logged, api, "http.needs_attention"))
        finally:
            api.close()


async def test_a_log_of_an_older_release_names_the_volume_that_has_its_trees(
    platform: Platform, executors: Executors, tmp_path: Path
) -> None:
    workspace_id, _ = await with_snapshots(platform, 3)
    await platform.pool.execute("UPDATE wvs.log_identity SET volume_id = NULL, volume_path = NULL")
    refused = executors.start(volume=str(make_volume(tmp_path / "other")))
    assert await refused.ended() == 2
    assert "holds none of them" in refused.log.read_text()
    assert await states(platform, workspace_id) == {SnapshotState.READY}

    async with platform.running():
        await platform.ready_snapshot(workspace_id)
    row = await platform.pool.fetchrow("SELECT volume_id, volume_path FROM wvs.log_identity")
    assert row is not None
    assert tuple(row) == (volume_id(platform.volume), os.path.realpath(platform.volume))


async def test_a_new_workspace_carries_the_volume_that_the_log_names(platform: Platform, tmp_path: Path) -> None:
    async with platform.running():
        await platform.create()
    api = ApiProcess(platform.url, tmp_path / "api.log")
    api.start()
    try:
        headers = {"idempotency-key": "new"}
        async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=30) as client:
            answer = await client.post("/v1/workspaces", json={"name": "new"})
    finally:
        api.close()
    assert answer.status_code == 202
    row = await platform.pool.fetchval("SELECT volume_id FROM wvs.workspaces WHERE name = 'new'")
    assert row == volume_id(platform.volume)


async def test_a_volume_that_was_made_again_takes_the_place_of_the_former_one(
    platform: Platform, executors: Executors, tmp_path: Path
) -> None:
    workspace_id, _ = await with_snapshots(platform, 2)
    other = make_volume(tmp_path / "other")
    shutil.copytree(platform.home(workspace_id), other / platform.home(workspace_id).name, symlinks=True)
    former = executors.start()
    await former.logged("executor_started")
    refused = wvs(platform, "volume", "rebind", volume=other)
    assert (refused.returncode, "Stop all executors" in refused.stderr) == (1, True), refused
    former.drain()
    await former.ended()

    moved = wvs(platform, "volume", "rebind", volume=other)
    assert moved.returncode == 0, moved.stderr
    assert str(volume_id(platform.volume)) in moved.stdout
    assert "3 of the 3 trees that must exist are on it" in moved.stdout
    late = executors.start()
    assert await late.ended() == 2, "the former volume is refused now"
    platform.volume = other
    async with platform.running():
        await platform.ready_snapshot(workspace_id)
        assert wvs(platform, "volume", "check").returncode == 0


async def test_more_losses_than_the_brake_allows_wait_for_a_person(
    platform: Platform, bench: Workbench, tmp_path: Path
) -> None:
    workspace_id, snapshots = await with_snapshots(platform, 5)
    away = tmp_path / "away"
    away.mkdir()
    for snapshot_id in snapshots[:4]:
        tree = await tree_of(platform, workspace_id, snapshot_id)
        shutil.move(tree, away / tree.name)

    metrics = Metrics()
    async with platform.running(metrics):
        await eventually(lambda: held(metrics, 1))
    assert await states(platform, workspace_id) == {SnapshotState.READY}
    assert value(metrics, "wvs_sweeper_trees_total", action="lost") == 0
    api = ApiProcess(platform.url, tmp_path / "api.log")
    api.start()
    try:
        assert "wvs runbook volume-losses" in readiness(api)
        assert api.metric("wvs_volume_brake") == 1
        checked = wvs(platform, "volume", "check", "--repair")
        assert checked.returncode == 1
        assert "--accept-losses" in checked.stdout
        assert "volume_brake_holds" in checked.stderr
        assert await states(platform, workspace_id) == {SnapshotState.READY}

        for tree in away.iterdir():
            shutil.move(tree, platform.home(workspace_id) / "trees" / tree.name)
        assert await sweep_volume(bench) == [], "the mount is back: the brake releases itself"
        assert "runbook" not in readiness(api)
        assert api.metric("wvs_volume_brake") == 0
    finally:
        api.close()

    for snapshot_id in snapshots[:4]:
        shutil.rmtree(await tree_of(platform, workspace_id, snapshot_id))
    assert {f.held for f in await sweep_volume(bench)} == {True}
    accepted = wvs(platform, "volume", "check", "--accept-losses")
    assert accepted.returncode == 1, accepted.stderr
    assert (await platform.events(workspace_id)).count("snapshot.lost.v1") == 4
    metrics = Metrics()
    async with platform.running(metrics):
        await eventually(lambda: held(metrics, 0))
        await platform.ready_snapshot(workspace_id)
    assert wvs(platform, "volume", "check").returncode == 0


async def held(metrics: Metrics, wanted: float) -> bool:
    swept = value(metrics, "wvs_volume_free_bytes") > 0
    return swept and value(metrics, "wvs_volume_brake") == wanted


async def logged(api: ApiProcess, event: str) -> bool:
    return event in api.log.read_text()


def readiness(api: ApiProcess) -> str:
    answer = httpx.get(f"{api.url}/readyz", timeout=30)
    assert answer.status_code == 200, "the service can serve while the brake holds"
    return answer.text


async def test_more_unknown_directories_than_the_brake_allows_stay_where_they_are(
    platform: Platform, bench: Workbench
) -> None:
    workspace_id, _ = await with_snapshots(platform, 1)
    strangers = [platform.home(workspace_id) / "trees" / f"by hand {number}" for number in range(4)]
    for stranger in strangers:
        stranger.mkdir()
    findings = await sweep_volume(bench)
    assert [(f.action, f.held) for f in findings] == [(Action.QUARANTINED, True)] * 4
    assert all(stranger.is_dir() for stranger in strangers)
    strangers[0].rmdir()
    assert [f.held for f in await sweep_volume(bench)] == [False] * 3
    assert not any(stranger.exists() for stranger in strangers)


async def test_the_brake_allows_a_twentieth_of_many_trees(platform: Platform, bench: Workbench) -> None:
    workspace_id, snapshots = await with_snapshots(platform, 5)
    await platform.pool.execute(
        "INSERT INTO wvs.trees (workspace_id, name, state, task_id, fence, intended_at) "
        "SELECT gen_random_uuid(), n::text, 'snapshot', gen_random_uuid(), 1, now() FROM generate_series(1, 74) n"
    )
    for snapshot_id in snapshots[:4]:
        shutil.rmtree(await tree_of(platform, workspace_id, snapshot_id))
    assert [f.held for f in await sweep_volume(bench)] == [False] * 4, "80 trees: four are a twentieth"


@pytest.mark.parametrize("kind", [WITHOUT_MOUNT, "reflink-on-xfs", BTRFS, "juicefs-on-juicefs"])
async def test_a_lost_snapshot_whose_directory_returns_is_ready_again(
    kind: str, pool: Pool, database_url: str, sites: Sites, tmp_path: Path
) -> None:
    with volume_of(kind, sites, tmp_path) as volume, ThreadPoolExecutor(2) as threads:
        async with Platform(pool, database_url, volume).hinting() as platform:
            await _lost_and_found(platform, bench_of(platform, threads))


async def _lost_and_found(platform: Platform, bench: Workbench) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        live = platform.live(workspace_id)
        (live / "file").write_text("content")
        os.link(live / "file", live / "another name")
        (live / "link").symlink_to("nowhere")
        (live / "directory").mkdir()
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.getcwd()
            os.chdir(live)
            try:
                listener.bind("socket")
            finally:
                os.chdir(here)
        snapshot_id = await platform.ready_snapshot(workspace_id)
    tree = await tree_of(platform, workspace_id, snapshot_id)
    away = tree.parent.parent / "away"
    tree.rename(away)
    assert [f.action for f in await sweep_volume(bench)] == [Action.LOST]
    away.rename(tree)
    tree.chmod(0o755)
    looked = await sweep_volume(bench, repair=False)
    assert [f.action for f in looked] == [Action.FOUND]
    assert await states(platform, workspace_id) == {SnapshotState.LOST}

    assert [f.action for f in await sweep_volume(bench)] == [Action.FOUND]
    assert (await platform.events(workspace_id))[-1] == "snapshot.found.v1"
    assert tree.stat().st_mode & 0o777 == 0o700, "closed to agents again"
    assert await sweep_volume(bench) == []
    async with platform.running():
        assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        assert (platform.live(workspace_id) / "another name").read_text() == "content"


async def test_a_directory_that_returns_with_another_content_stays_lost(
    platform: Platform, bench: Workbench, tmp_path: Path
) -> None:
    workspace_id, (snapshot_id,) = await with_snapshots(platform, 1)
    tree = await tree_of(platform, workspace_id, snapshot_id)
    shutil.move(tree, tmp_path / "away")
    await sweep_volume(bench)
    shutil.move(tmp_path / "away", tree)
    (tree / "root" / "more").write_text("more")
    (finding,) = await sweep_volume(bench)
    assert (finding.action, finding.name) == (Action.CHANGED, tree.name)
    assert "2 files and 11 bytes, its event says 1 and 7" in finding.detail
    assert await states(platform, workspace_id) == {SnapshotState.LOST}
    (tree / "root" / "more").unlink()
    assert [f.action for f in await sweep_volume(bench)] == [Action.FOUND]
    assert await states(platform, workspace_id) == {SnapshotState.READY}


async def test_a_disabled_workspace_that_a_person_deleted_leaves_no_findings_and_its_snapshots_can_be_dropped(
    platform: Platform, bench: Workbench
) -> None:
    workspace_id, snapshots = await with_snapshots(platform, 2)
    async with platform.running():
        assert await platform.set_current(workspace_id, snapshots[0]) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)
    await platform.execute(workspace_id, DisableWorkspace())
    shutil.rmtree(platform.home(workspace_id))
    findings = await sweep_volume(bench)
    assert [f.action for f in findings] == [Action.LOST, Action.LOST], "its live tree serves nobody any more"
    assert wvs(platform, "volume", "check").stdout == "the volume matches the log\n"

    async with platform.running():
        for snapshot_id in snapshots:  # one of them is current
            assert await platform.drop(workspace_id, snapshot_id) is TaskState.SUCCEEDED
    assert await states(platform, workspace_id) == {SnapshotState.DROPPED}
    assert not platform.home(workspace_id).exists()


async def test_a_lost_snapshot_of_a_disabled_workspace_is_found_again(
    platform: Platform, bench: Workbench, tmp_path: Path
) -> None:
    workspace_id, (snapshot_id,) = await with_snapshots(platform, 1)
    await platform.execute(workspace_id, DisableWorkspace())
    tree = await tree_of(platform, workspace_id, snapshot_id)
    shutil.move(tree, tmp_path / "away")
    await sweep_volume(bench)
    assert await states(platform, workspace_id) == {SnapshotState.LOST}
    shutil.move(tmp_path / "away", tree)
    await sweep_volume(bench)
    assert await states(platform, workspace_id) == {SnapshotState.READY}


async def test_a_check_logs_what_differs_and_a_repair_what_it_did_at_the_level_of_the_damage(
    platform: Platform,
) -> None:
    workspace_id, (snapshot_id,) = await with_snapshots(platform, 1)
    (platform.home(workspace_id) / "trees" / "by hand").mkdir()
    shutil.rmtree(await tree_of(platform, workspace_id, snapshot_id))
    looked = wvs(platform, "volume", "check").stderr
    assert '"difference":"unknown directory"' in looked.replace(": ", ":")
    assert "quarantined" not in looked
    assert "lost" not in looked.replace("wvs-loss", "")
    repaired = wvs(platform, "volume", "check", "--repair").stderr.splitlines()
    levels = {action: line for line in repaired for action in ("quarantined", "lost") if f'"action":"{action}"' in line}
    assert '"level":"warning"' in levels["quarantined"]
    assert '"level":"error"' in levels["lost"]
    assert format_id(WORKSPACE, workspace_id) in levels["lost"]
