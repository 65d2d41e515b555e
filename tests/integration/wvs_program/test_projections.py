"""`wvs projections` as an operator uses it: its output and its exit codes."""

import os
import subprocess
import sys

from tests.integration.eventlog.commanding import write_path
from tests.integration.projections.past import lively_past

from wvs.postgres.pool import Pool


def projections(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wvs.cli.wvs", "projections", *arguments],
        env={**os.environ, "WVS_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


async def test_a_rebuild_prints_its_progress_and_a_summary(pool: Pool, database_url: str) -> None:
    path = write_path(pool)
    await lively_past(path, "one")
    await path.close()
    events = await pool.fetchval("SELECT count(*) FROM wvs.events")
    done = projections(database_url, "rebuild")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"rebuilt from {events} events in ")
    assert "replaying the log: " in done.stderr
    assert projections(database_url, "verify").returncode == 0


async def test_an_unreadable_event_is_reported_with_a_remedy(pool: Pool, database_url: str) -> None:
    path = write_path(pool)
    await lively_past(path, "one")
    await path.close()
    await pool.execute("UPDATE wvs.events SET topic = 'workspace.painted.v1' WHERE notification_id = 2")
    failed = projections(database_url, "rebuild")
    assert failed.returncode == 1
    assert "wvs: The event at position 2 cannot be read" in failed.stderr
    assert "The live tables are unchanged" in failed.stderr
    assert "Traceback" not in failed.stderr


async def test_a_database_without_the_schema_is_reported(empty_database_url: str) -> None:
    failed = projections(empty_database_url, "verify")
    assert failed.returncode == 1
    assert "wvs migrate" in failed.stderr
    assert "Traceback" not in failed.stderr
