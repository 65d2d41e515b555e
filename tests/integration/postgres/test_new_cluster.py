"""A database that moved to a new cluster: executors refuse the volume, and the step that they name helps."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from tests.integration.http.api_process import free_port
from tests.integration.postgres.test_restore import run, server, tool

from wvs.postgres.migrate import migrate


class Site:
    """Programs of WVS on one volume."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "WVS_VOLUME": str(directory / "volume"),
            "WVS_LOG_FORMAT": "json",
            "WVS_EXECUTOR_METRICS_PORT": "0",
            "WVS_PORT": str(free_port()),
        }

    def wvs(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wvs.cli.wvs", *arguments],
            env={**self.environment, "WVS_DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def executor_runs(self, url: str) -> bool:
        """Starts an executor and ends it; whether it began to work."""
        log = self.directory / "executor.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "wvs.cli.wvs", "executor"],
                env={**self.environment, "WVS_DATABASE_URL": url},
                stderr=output,
            )
        try:
            deadline = time.monotonic() + 60
            while "executor_started" not in log.read_text():
                if process.poll() is not None:
                    return False
                assert time.monotonic() < deadline
                time.sleep(0.05)
            return True
        finally:
            process.terminate()
            process.wait(30)


async def test_the_refusal_after_a_move_to_a_new_cluster_leads_to_the_step_that_helps(tmp_path: Path):
    dump, restore = tool("pg_dump"), tool("pg_restore")
    site = Site(tmp_path)
    assert site.wvs("", "volume", "init", str(tmp_path / "volume"), "--engine", "copy").returncode == 0
    with server(tmp_path / "old") as old:
        await migrate(old.url())
        assert site.executor_runs(old.url())
        run(dump, "--format=custom", f"--file={tmp_path / 'dump'}", old.url())
    with server(tmp_path / "new") as new:
        run(restore, "--no-owner", "--exit-on-error", f"--dbname={new.url()}", str(tmp_path / "dump"))
        refused = site.wvs(new.url(), "executor")
        assert refused.returncode == 2
        assert "belongs to the database cluster" in refused.stderr
        assert "pg_upgrade" in refused.stderr
        assert site.wvs(new.url(), "runbook", *re.findall(r"wvs runbook (\S+)", refused.stderr)).returncode == 0
        (step,) = re.findall(r"`wvs (.+?)`", refused.stderr)
        helped = site.wvs(new.url(), *step.split())
        assert helped.returncode == 0, helped.stderr
        assert site.executor_runs(new.url())
        assert site.wvs(new.url(), "volume", "check").returncode == 0
        with psycopg.connect(new.url()) as connection:
            row = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
    assert row is not None
    assert f'"{row[0]}"' in (tmp_path / "volume" / ".wvs" / "volume.json").read_text()
