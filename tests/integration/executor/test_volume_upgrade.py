"""`wvs volume upgrade` on other engines: a volume is brought back to layout 1 here, and must come over again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.engines.conftest import Sites
from tests.integration.executor.campaign import KINDS
from tests.integration.executor.conftest import volume_of
from tests.integration.executor.platform import Platform

from wvs.domain.states import TaskState
from wvs.postgres.pool import Pool


def wvs(platform: Platform, *arguments: str, failpoints: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "WVS_DATABASE_URL": platform.url,
        "WVS_VOLUME": str(platform.volume),
        "WVS_FAILPOINTS": failpoints,
    }
    command = [sys.executable, "-m", "wvs.cli.wvs", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)


def take_apart(volume: Path) -> None:
    """Makes a volume of layout 1 of it, as the release before would have left it."""
    for home in volume.glob("ws_*"):
        live = (home / "live" / "name").read_text().strip()
        (home / "live").rename(home / "trees" / live)
        for name in (*home.glob("trees/*/name"), *home.glob("trash/*/name")):
            name.unlink()
        (home / "switch").rmdir()
        (home / "current").unlink()
        (home / "current").symlink_to(f"trees/{live}/root")
    identity = volume / ".wvs" / "volume.json"
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "layout": 1}))


async def filled(platform: Platform) -> tuple[UUID, UUID, UUID]:
    """A workspace with two snapshots, whose live tree is a clone of the first one and was changed since."""
    workspace_id = await platform.create()
    (platform.live(workspace_id) / "file").write_text("first")
    first = await platform.ready_snapshot(workspace_id)
    (platform.live(workspace_id) / "file").write_text("second")
    second = await platform.ready_snapshot(workspace_id)
    assert await platform.set_current(workspace_id, first) is TaskState.SUCCEEDED
    (platform.live(workspace_id) / "file").write_text("since")
    return workspace_id, first, second


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_volume_of_layout_1_comes_over_on_each_engine(
    pool: Pool, database_url: str, sites: Sites, tmp_path: Path, kind: str
) -> None:
    with volume_of(kind, sites, tmp_path) as volume:
        async with Platform(pool, database_url, volume).hinting() as platform:
            async with platform.running():
                workspace_id, first, second = await filled(platform)
                await platform.create()
                await platform.until_swept(workspace_id)
            inode = platform.live(workspace_id).stat().st_ino
            take_apart(volume)
            assert "run wvs volume upgrade" in wvs(platform, "volume", "check").stderr
            killed = wvs(platform, "volume", "upgrade", failpoints="upgrade.moved=kill")
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            done = wvs(platform, "volume", "upgrade")
            assert done.returncode == 0, done.stderr
            checked = wvs(platform, "volume", "check")
            assert checked.returncode == 0, checked.stdout + checked.stderr
            assert platform.live(workspace_id).stat().st_ino == inode
            assert (platform.live(workspace_id) / "file").read_text() == "since"
            async with platform.running():
                for snapshot, content in ((second, "second"), (first, "first")):
                    assert await platform.set_current(workspace_id, snapshot) is TaskState.SUCCEEDED
                    assert (platform.live(workspace_id) / "file").read_text() == content
                assert await platform.drop(workspace_id, second) is TaskState.SUCCEEDED
                await platform.until_swept(workspace_id)
