"""After a restored dump or a point-in-time recovery, positions, followers, fences and keys hold or are refused."""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.eventlog.commanding import activated, created, key_of, snapshot, write_path
from tests.integration.eventlog.reading import read_events
from tests.integration.http.actors import client_of, running_api
from tests.skips import not_installed

from wvs.eventlog.codec import EventMapper
from wvs.eventlog.reading.follower import check_sequence, log_epoch, safe_position
from wvs.postgres.embedded import EmbeddedPostgres, embedded_binaries
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import Pool, connect, create_pool
from wvs.postgres.server_user import server_user
from wvs.queue.lanes import LaneCursor, claim

KEPT, LOST = key_of("answered before the copy"), key_of("answered after it")


def tool(name: str) -> str:
    """A program of the server under test; skips the test if the server lacks it."""
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    path = (Path(binaries) if binaries else embedded_binaries()) / name
    if not path.exists():
        pytest.skip(not_installed(str(path)))
    return str(path)


def server(directory: Path, **settings: str) -> EmbeddedPostgres:
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    return EmbeddedPostgres(directory, durable=False, binaries=Path(binaries) if binaries else None, settings=settings)


def run(*command: str, **environment: str) -> str:
    """Runs a program, which has to succeed, and returns its output."""
    ended = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def wait_until_promoted(url: str) -> None:
    """Waits until the server accepts writes: it has then recovered up to its target."""
    deadline = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
            assert time.monotonic() < deadline, "the recovery does not end"
            time.sleep(0.05)


def raise_epoch(url: str) -> str:
    """Runs the operator's command and returns its output."""
    return run(sys.executable, "-m", "wvs.cli.wvs", "epoch", "raise", WVS_DATABASE_URL=url)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory that the server's user can reach."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory != Path("/tmp") and "pytest" in directory.name:
            directory.chmod(0o755)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


class Baseline:
    """The content of the log when the copy was made: its events in order, and the fence of a claim."""

    def __init__(self, workspace_id: UUID, events: list[Any], fence: int) -> None:
        self.workspace_id = workspace_id
        self.events = events
        self.fence = fence

    @property
    def position(self) -> int:
        return self.events[-1].position


async def write_baseline(url: str) -> Baseline:
    """Creates a workspace with requested snapshots: one under a key, and one claimed."""
    pool = await create_pool(url, application_name="wvs test", size=4)
    connection = await connect(url, application_name="test executor")
    try:
        path = write_path(pool)
        workspace_id = await activated(path, "one")
        await snapshot(path, workspace_id, KEPT)
        held = await claim(connection, "executor-1", 30, LaneCursor())
        assert held is not None
        await path.close()
        return Baseline(workspace_id, await events_of(pool), held.fence)
    finally:
        await connection.close()
        await pool.close()


async def write_later_events(url: str, workspace_id: UUID) -> list[Any]:
    """Writes more events, which the copy lacks; the first of them under a key."""
    pool = await create_pool(url, application_name="wvs test", size=4)
    try:
        path = write_path(pool)
        await snapshot(path, workspace_id, LOST)
        for number in range(40):  # more than the 32 numbers that a sequence logs ahead in the WAL
            await created(path, f"later-{number}")
        await path.close()
        return await events_of(pool)
    finally:
        await pool.close()


async def events_of(pool: Pool, after: int = 0) -> list[Any]:
    async with pool.acquire() as connection:
        return await read_events(connection, EventMapper(), after, 1000)


async def check_restored_log(url: str, was: Baseline) -> None:
    """Checks that the restored log is complete and continues after its last position, with no event lost or doubled."""
    pool = await create_pool(url, application_name="wvs test", size=4)
    try:
        async with pool.acquire() as connection:
            await check_sequence(connection)
            assert await safe_position(connection) >= was.position
        assert await events_of(pool) == was.events
        path = write_path(pool)
        before = was.events[-1].position
        replayed = await snapshot(path, was.workspace_id, KEPT)
        assert replayed.replayed, "a key from before the copy gets its original answer"
        assert await events_of(pool, before) == []
        made = await snapshot(path, was.workspace_id, LOST)
        assert not made.replayed, "a key from after the copy is unknown: the request is executed"
        await created(path, "afterwards")
        new = await events_of(pool, before)
        assert new[0].recorded.originator_id == was.workspace_id
        assert len(new) == 2
        assert all(event.position > before for event in new)
        assert (await write_path(pool).load(was.workspace_id)) == (await path.load(was.workspace_id))
        await path.close()
    finally:
        await pool.close()


async def check_lost_positions_are_refused(url: str, was: Baseline, lost: list[Any]) -> None:
    """Checks that after `wvs epoch raise` the lost positions are refused, and new fences exceed every lost fence."""
    assert raise_epoch(url).startswith("epoch 2 begins after position ")
    connection = await connect(url, application_name="test executor")
    try:
        assert await log_epoch(connection) == 2
        await connection.execute("UPDATE wvs.lanes SET lease_until = now() - interval '1 s', task_id = NULL")
        await connection.execute("UPDATE wvs.lanes SET ready_at = now() WHERE workspace_id = $1", was.workspace_id)
        await connection.execute("UPDATE wvs.queue SET state = 'queued', run_at = now()")
        held = await claim(connection, "executor-2", 30, LaneCursor())
        assert held is not None
        assert held.fence > was.fence + 100_000
    finally:
        await connection.close()
    async with running_api(url) as api, client_of(api) as client:
        for position in (was.position, lost[-1].position):
            response = await client.get("/v1/events", params={"after": f"1:{position}"})
            assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR")
            assert "restored" in response.json()["detail"]
        page = await client.read("/v1/events", limit=1)
        assert page["items"][0]["position"] == f"2:{was.events[0].position}"


async def test_a_dump_restored_into_a_young_cluster_is_complete(root: Path) -> None:
    dump, restore = tool("pg_dump"), tool("pg_restore")
    with server(root / "old") as old:
        url = old.url()
        await migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            for _ in range(200):  # transactions that the young cluster does not have
                connection.execute("SELECT pg_current_xact_id()")
            age = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        was = await write_baseline(url)
        run(dump, "--format=custom", f"--file={root / 'dump'}", url)
        lost = await write_later_events(url, was.workspace_id)
    with server(root / "young") as young:
        url = young.url()
        run(restore, "--no-owner", "--exit-on-error", f"--dbname={url}", str(root / "dump"))
        with psycopg.connect(url, autocommit=True) as connection:
            young_age = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert age is not None
        assert young_age is not None
        assert young_age[0] < age[0], "the cluster is not young, so the old events prove nothing"
        assert await migrate(url) == []
        await check_restored_log(url, was)
        await check_lost_positions_are_refused(url, was, lost)


async def test_a_log_recovered_to_an_earlier_point_continues_from_there(root: Path) -> None:
    basebackup = tool("pg_basebackup")
    user = server_user(root / "none")
    archive = root / "archive"
    archive.mkdir()
    user.own(archive)
    archiving = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f", "max_wal_senders": "2"}
    copy = root / "restored"
    with server(root / "old", **archiving) as old:
        url = old.url()
        await migrate(url)
        copy.mkdir()
        copy.chmod(0o755)
        run(basebackup, f"--dbname={url}", f"--pgdata={copy / 'postgres'}", "--checkpoint=fast")
        was = await write_baseline(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_create_restore_point('before_it')")
        lost = await write_later_events(url, was.workspace_id)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_switch_wal()")
    for path in (copy / "postgres", *(copy / "postgres").rglob("*")):
        user.own(path)
    (copy / "postgres" / "recovery.signal").touch()
    user.own(copy / "postgres" / "recovery.signal")
    recovery = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_name": "before_it",
        "recovery_target_action": "promote",
    }
    with server(copy, **recovery) as recovered:
        url = recovered.url()
        wait_until_promoted(url)
        await check_restored_log(url, was)
        await check_lost_positions_are_refused(url, was, lost)


async def test_raising_the_epoch_corrects_a_sequence_that_is_behind_the_log(database_url: str, pool: Pool) -> None:
    path = write_path(pool)
    await activated(path, f"w-{uuid.uuid4().hex[:8]}")
    await path.close()
    last = await pool.fetchval("SELECT max(notification_id) FROM wvs.events")
    await pool.execute("SELECT setval('wvs.events_notification_id_seq', 1)")
    assert "sequence was behind the log" in raise_epoch(database_url)
    async with pool.acquire() as connection:
        await check_sequence(connection)
    await created(path, "next")
    assert await pool.fetchval("SELECT max(notification_id) FROM wvs.events") == last + 1
