"""A volume of layout 1 beside the embedded database of `wvs up`, which refuses that volume and therefore cannot run."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.integration.executor.test_volume_upgrade import take_apart
from tests.integration.wvs_program.test_up import running, start

from wvs.postgres.discovery import find_running_server


def wvs(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("WVS_DATABASE_URL", "WVS_VOLUME")}
    return subprocess.run(
        [sys.executable, "-m", "wvs.cli.wvs", *arguments],
        env=environment | {"WVS_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_volume_of_a_stopped_up_is_upgraded_with_its_embedded_database(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        request = urllib.request.Request(f"{up.url}/v1/workspaces", b'{"name": "one"}')
        for name, value in {"Content-Type": "application/json", "Idempotency-Key": "k", "Prefer": "wait=30"}.items():
            request.add_header(name, value)
        with urllib.request.urlopen(request, timeout=40) as answer:
            live = Path(json.load(answer)["workspace"]["path"])
        (live / "file").write_text("kept")
    take_apart(tmp_path / "volume")
    refused = start(tmp_path)
    assert refused.wait(60) != 0
    assert "wvs volume upgrade" in (tmp_path / "err").read_text()
    done = wvs(tmp_path, "volume", "upgrade")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/volume has layout 2 now: workspaces: 1\n"), done.stderr
    assert find_running_server(tmp_path) is None
    with running(tmp_path):
        assert (live / "file").read_text() == "kept"
        assert wvs(tmp_path, "volume", "upgrade").stdout == f"{tmp_path}/volume is up to date: layout 2\n"
        assert wvs(tmp_path, "volume", "check").returncode == 0


def test_without_any_database_an_upgrade_makes_none(tmp_path: Path) -> None:
    assert wvs(tmp_path, "volume", "init", str(tmp_path / "volume"), "--engine", "copy").returncode == 0
    refused = wvs(tmp_path, "volume", "upgrade")
    assert refused.returncode == 2
    assert "WVS_DATABASE_URL is not set" in refused.stderr
    assert not (tmp_path / "postgres").exists()
