"""With which schemas a program of this release starts, and its error for the others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.integration.eventlog.commanding import ORIGIN, created, now, write_path
from tests.integration.http.api_process import ApiProcess
from tests.integration.plans.compositions import compositions

from wvs.domain.commands import CancelTask
from wvs.postgres.compatibility import LEAST_MIGRATION, check_schema_at
from wvs.postgres.errors import SchemaTooNew, SchemaTooOld
from wvs.postgres.migrate import migrate, migration_files
from wvs.postgres.pool import Pool, connect
from wvs.postgres.queries import queries, sql
from wvs.postgres.sources import database_files

RELEASE_BEFORE = "20261128000080"
NEWER = "20990101000000"
NEWEST = max(migration_files())
PROGRAMS = (
    ("api",),
    ("executor",),
    ("projections", "verify"),
    ("projections", "rebuild"),
    ("epoch", "raise"),
    ("volume", "check"),
    ("volume", "rebind"),
)


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wvs.cli.wvs", *arguments],
        env={**os.environ, "WVS_DATABASE_URL": url, "WVS_PORT": "0", "WVS_EXECUTOR_METRICS_PORT": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def migrate_to(url: str, version: str, directory: Path) -> None:
    """Applies the migrations up to `version`."""
    for path in database_files("migrations").glob("*.sql"):
        if path.name.partition("_")[0] <= version:
            shutil.copy(path, directory)
    await migrate(url, directory=directory)


async def mark_newer(url: str, least: str | None) -> None:
    """Adds a migration that this program does not know, and sets the oldest program that it supports."""
    connection = await connect(url, application_name="wvs test")
    try:
        await connection.execute("INSERT INTO wvs.schema_migrations VALUES ($1)", NEWER)
        if least is None:
            await connection.execute("DROP FUNCTION wvs.least_program_migration")
            return
        await connection.execute(
            "CREATE OR REPLACE FUNCTION wvs.least_program_migration() RETURNS text LANGUAGE sql IMMUTABLE "
            f"AS $$ SELECT '{least}' $$"
        )
    finally:
        await connection.close()


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
async def test_a_program_refuses_the_schema_of_the_release_before(
    empty_database_url: str, tmp_path: Path, program: tuple[str, ...]
):
    await migrate_to(empty_database_url, RELEASE_BEFORE, tmp_path)
    done = run(empty_database_url, *program)
    assert done.returncode == 1
    assert (
        f"wvs: the schema of the database is too old: it is at migration {RELEASE_BEFORE}, "
        f"and this program needs migration {LEAST_MIGRATION} (not applied: 20261129000090_"
    ) in done.stderr
    assert "run wvs migrate of this release\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ready" not in done.stdout


def test_an_empty_database_needs_a_migration_and_no_list_of_all_of_them(empty_database_url: str):
    done = run(empty_database_url, "api")
    assert done.returncode == 1
    assert done.stderr == (
        "wvs: the schema of the database is too old: it has no migrations, and this program needs migration "
        f"{LEAST_MIGRATION}; run wvs migrate of this release\n"
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
async def test_a_program_refuses_a_schema_that_does_not_support_it_any_more(
    database_url: str, program: tuple[str, ...]
):
    await mark_newer(database_url, NEWER)
    done = run(database_url, *program)
    assert done.returncode == 1
    assert (
        f"wvs: the schema of the database is too new: it is at migration {NEWER} and supports programs that know "
        f"migration {NEWER}, and this program knows migrations up to {NEWEST}; use a newer release of wvs\n"
    ) in done.stderr
    assert "Traceback" not in done.stderr
    assert "ready" not in done.stdout


async def test_wvs_up_refuses_it_too_and_starts_nothing(database_url: str, tmp_path: Path):
    await mark_newer(database_url, NEWER)
    done = run(database_url, "up", "--data-dir", str(tmp_path), "--volume", str(tmp_path / "volume"))
    assert done.returncode == 1
    assert "too new" in done.stderr
    assert not (tmp_path / "volume").exists()


@pytest.mark.parametrize("least", [RELEASE_BEFORE, NEWEST])
async def test_a_newer_schema_that_supports_this_program_is_served(database_url: str, tmp_path: Path, least: str):
    await mark_newer(database_url, least)
    api = ApiProcess(database_url, tmp_path / "log")
    api.start()
    try:
        async with httpx.AsyncClient(base_url=api.url) as client:
            assert (await client.get("/readyz")).status_code == 200
            key = {"Idempotency-Key": "one"}
            assert (await client.post("/v1/workspaces", json={"name": "one"}, headers=key)).status_code == 202
    finally:
        assert api.stop() == 0


async def test_a_newer_schema_that_says_nothing_is_refused(database_url: str):
    await mark_newer(database_url, None)
    with pytest.raises(SchemaTooNew, match="does not say which programs it supports"):
        await check_schema_at(database_url)


async def test_a_database_without_the_schema_is_refused(empty_database_url: str):
    with pytest.raises(SchemaTooOld, match="it has no migrations"):
        await check_schema_at(empty_database_url)


async def test_a_running_api_is_not_ready_once_the_schema_stops_supporting_it(database_url: str, tmp_path: Path):
    api = ApiProcess(database_url, tmp_path / "log")
    api.start()
    try:
        await mark_newer(database_url, NEWER)
        async with httpx.AsyncClient(base_url=api.url) as client:
            answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "the schema of the database is too new" in answer.json()["detail"]
    finally:
        api.close()


async def test_the_least_migration_is_all_that_the_queries_need(empty_database_url: str, tmp_path: Path):
    assert LEAST_MIGRATION in migration_files()
    await migrate_to(empty_database_url, LEAST_MIGRATION, tmp_path)
    await check_schema_at(empty_database_url)
    connection = await connect(empty_database_url, application_name="wvs test")
    try:
        await connection.execute(sql("begin_rebuild"), "test")
        await connection.execute(sql("make_replayed_tables"))
        texts = [query.sql for query in queries().values() if not query.is_fragment]
        for text in [*texts, *(composed.sql for composed in compositions())]:
            await connection.prepare(text)
    finally:
        await connection.close()


async def test_a_program_of_the_release_before_writes_beside_this_one(pool: Pool):
    """It calls the function that this release does not call any more."""
    path = write_path(pool)
    workspace_id, _ = await created(path, "one")
    before = await path.load(workspace_id)
    assert before is not None
    (task_id,) = before.tasks
    rows = await pool.fetch("SELECT * FROM wvs.events ORDER BY originator_version")
    await pool.execute("TRUNCATE wvs.events, wvs.streams, wvs.workspaces, wvs.tasks, wvs.lanes, wvs.queue")
    shown = f'{{"workspace": "{workspace_id}"}}'
    write = [
        *(workspace_id, 0, b"\0" * 32, [row["topic"] for row in rows], [row["state"] for row in rows]),
        *([row["hash"] for row in rows], [row["task_id"] for row in rows], [row["snapshot_id"] for row in rows]),
        *(rows[0]["occurred_at"], rows[0]["actor"], rows[0]["request_id"], None, b"{}"),
        f'[{{"type": "enqueue", "task_id": "{task_id}", "seq": 1, "kind": "workspace_init"}}]'.encode(),
        *("anonymous createWorkspace", "key", b"print", 202, shown.encode(), None, None),
    ]
    parameters = ", ".join(f"${number}" for number in range(1, len(write) + 1))
    query = f"SELECT outcome, version FROM wvs.commit_command({parameters})"
    assert await pool.fetchrow(query, *write) == ("committed", len(rows))
    assert await pool.fetchrow(query, *write) == ("replayed", len(rows))
    assert await pool.fetch("SELECT topic, state, hash FROM wvs.events ORDER BY originator_version") == [
        (row["topic"], row["state"], row["hash"]) for row in rows
    ]
    this = write_path(pool)
    assert await this.load(workspace_id) == before
    cancelled = await this.execute(workspace_id, CancelTask(task_id), at=now(), origin=ORIGIN)
    assert cancelled.workspace is not None
    assert cancelled.workspace.version == len(rows) + len(cancelled.events) > len(rows)
