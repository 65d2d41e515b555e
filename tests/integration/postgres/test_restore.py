"""Dump and restore, and recovery to before some events: positions, followers, fences and keys hold or refuse."""

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
from tests.integration.http.actors import client_of, running_api
from tests.skips import not_installed

from wvs.eventlog.codec import EventMapper
from wvs.eventlog.follower import check_sequence, log_epoch, read_events, safe_position
from wvs.postgres.embedded import EmbeddedPostgres, embedded_binaries
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import Pool, connect, create_pool
from wvs.postgres.server_user import server_user
from wvs.queue.lanes import LaneCursor, claim

KEPT, LOST = key_of("answered before the copy"), key_of("answered behind it")


def tool(name: str) -> str:
    """A program that comes with the server under test; the test is skipped where it does not."""
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


def ran(*command: str, **environment: str) -> str:
    """What a program printed; it has to succeed."""
    ended = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def until_promoted(url: str) -> None:
    """The server accepts writes: it has come to the point that it was to recover to."""
    deadline = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
            assert time.monotonic() < deadline, "the recovery does not end"
            time.sleep(0.05)


def epoch_raised(url: str) -> str:
    """What the operator's command says."""
    return ran(sys.executable, "-m", "wvs.cli.wvs", "epoch", "raise", WVS_DATABASE_URL=url)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A directory that the server's user can reach."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory != Path("/tmp") and "pytest" in directory.name:
            directory.chmod(0o755)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


class Lived:
    """What was in the log when the copy was made: events in order, and a claim's fence."""

    def __init__(self, workspace_id: UUID, events: list[Any], fence: int) -> None:
        self.workspace_id = workspace_id
        self.events = events
        self.fence = fence

    @property
    def position(self) -> int:
        return self.events[-1].position


async def lived(url: str) -> Lived:
    """A workspace with snapshots asked for, one under a key, and one claimed."""
    pool = await create_pool(url, application_name="wvs test", size=4)
    connection = await connect(url, application_name="test executor")
    try:
        path = write_path(pool)
        workspace_id = await activated(path, "one")
        await snapshot(path, workspace_id, KEPT)
        held = await claim(connection, "executor-1", 30, LaneCursor())
        assert held is not None
        await path.close()
        return Lived(workspace_id, await events_of(pool), held.fence)
    finally:
        await connection.close()
        await pool.close()


async def later(url: str, workspace_id: UUID) -> list[Any]:
    """More events, of which the copy knows nothing; the first of them under a key."""
    pool = await create_pool(url, application_name="wvs test", size=4)
    try:
        path = write_path(pool)
        await snapshot(path, workspace_id, LOST)
        for number in range(40):  # beyond the 32 numbers that a sequence writes ahead to the WAL
            await created(path, f"later-{number}")
        await path.close()
        return await events_of(pool)
    finally:
        await pool.close()


async def events_of(pool: Pool, after: int = 0) -> list[Any]:
    async with pool.acquire() as connection:
        return await read_events(connection, EventMapper(), after, 1000)


async def holds(url: str, was: Lived) -> None:
    """The restored log is whole, and goes on behind its last position with nothing lost or doubled."""
    pool = await create_pool(url, application_name="wvs test", size=4)
    try:
        async with pool.acquire() as connection:
            await check_sequence(connection)
            assert await safe_position(connection) >= was.position
        assert await events_of(pool) == was.events
        path = write_path(pool)
        before = was.events[-1].position
        replayed = await snapshot(path, was.workspace_id, KEPT)
        assert replayed.replayed, "a key of before the copy is answered as it was then"
        assert await events_of(pool, before) == []
        made = await snapshot(path, was.workspace_id, LOST)
        assert not made.replayed, "a key of behind the copy is unknown: the request is carried out"
        await created(path, "afterwards")
        new = await events_of(pool, before)
        assert new[0].recorded.originator_id == was.workspace_id
        assert len(new) == 2
        assert all(event.position > before for event in new)
        assert (await write_path(pool).load(was.workspace_id)) == (await path.load(was.workspace_id))
        await path.close()
    finally:
        await pool.close()


async def refuses_what_was_lost(url: str, was: Lived, lost: list[Any]) -> None:
    """After `wvs epoch raise` positions of the lost log are refused, and fences are above all that it gave out."""
    assert epoch_raised(url).startswith("epoch 2 begins behind position ")
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


async def test_a_dump_restored_into_a_young_cluster_holds_everything(root: Path) -> None:
    dump, restore = tool("pg_dump"), tool("pg_restore")
    with server(root / "old") as old:
        url = old.url()
        await migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            for _ in range(200):  # transactions that the young cluster does not have
                connection.execute("SELECT pg_current_xact_id()")
            age = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        was = await lived(url)
        ran(dump, "--format=custom", f"--file={root / 'dump'}", url)
        lost = await later(url, was.workspace_id)
    with server(root / "young") as young:
        url = young.url()
        ran(restore, "--no-owner", "--exit-on-error", f"--dbname={url}", str(root / "dump"))
        with psycopg.connect(url, autocommit=True) as connection:
            young_age = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert age is not None
        assert young_age is not None
        assert young_age[0] < age[0], "else the cluster is not young, and old events prove nothing"
        assert await migrate(url) == []
        await holds(url, was)
        await refuses_what_was_lost(url, was, lost)


async def test_a_recovery_to_before_some_events_goes_on_from_there(root: Path) -> None:
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
        ran(basebackup, f"--dbname={url}", f"--pgdata={copy / 'postgres'}", "--checkpoint=fast")
        was = await lived(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_create_restore_point('before_it')")
        lost = await later(url, was.workspace_id)
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
        until_promoted(url)
        await holds(url, was)
        await refuses_what_was_lost(url, was, lost)


async def test_a_sequence_that_was_left_behind_is_put_right(database_url: str, pool: Pool) -> None:
    path = write_path(pool)
    await activated(path, f"w-{uuid.uuid4().hex[:8]}")
    await path.close()
    last = await pool.fetchval("SELECT max(notification_id) FROM wvs.events")
    await pool.execute("SELECT setval('wvs.events_notification_id_seq', 1)")
    assert "put right" in epoch_raised(database_url)
    async with pool.acquire() as connection:
        await check_sequence(connection)
    await created(path, "next")
    assert await pool.fetchval("SELECT max(notification_id) FROM wvs.events") == last + 1
