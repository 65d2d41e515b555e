"""A rebuild creates the same tables, row for row and index for index, while commands and readers continue."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest
from tests.integration.eventlog.commanding import cancel, snapshot, write_path
from tests.integration.eventlog.test_crashes import FAIL, SEQUENCE, roll_back
from tests.integration.projections.past import Past, lively_past

from wvs.application.write_path import WritePath
from wvs.eventlog.codec import EventMapper
from wvs.postgres.pool import Pool, connect
from wvs.projections.listings import Listings, SnapshotFilter, WorkspaceFilter
from wvs.projections.readers import Readers
from wvs.projections.rebuild import RebuildRunsError, SchemaChangedError, SwapBlockedError, rebuild
from wvs.projections.replaying import PoisonedEventError
from wvs.projections.verify import verify
from wvs.readmodel.changes import KEYS

SHAPE = """
SELECT t.relname, t.reloptions::text, t.relpersistence::text,
       (SELECT array_agg(pg_get_indexdef(x.indexrelid) ORDER BY pg_get_indexdef(x.indexrelid))
        FROM pg_index x WHERE x.indrelid = t.oid)::text AS indexes,
       (SELECT array_agg(k.conname || ' ' || pg_get_constraintdef(k.oid) ORDER BY k.conname)
        FROM pg_constraint k WHERE k.conrelid = t.oid)::text AS constraints,
       (SELECT array_agg(a.attname || ' ' || a.atttypid::regtype || ' ' || a.attnotnull ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped)::text AS columns
FROM pg_class t WHERE t.relnamespace = 'wvs'::regnamespace AND t.relname = ANY (wvs.read_models()) ORDER BY 1
"""

DYING = """
import asyncio, os, signal, sys
from wvs.eventlog.codec import EventMapper
from wvs.projections import rebuild
rebuild.BATCH, rebuild.CLOSE_ENOUGH = 5, 1
url, phase, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
phases = []
def progress(name, reached, end):
    phases.append(name)
    if name == phase and phases.count(name) == number:
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(rebuild.rebuild(url, EventMapper(), progress))
"""


LATEST = UUID(int=2**128 - 1)


def silent(_phase: str, _reached: int, _end: int) -> None:
    pass


async def rows(pool: Pool) -> dict[str, list[Any]]:
    """Every row of every read model."""
    return {
        table: await pool.fetchval(f"SELECT coalesce(jsonb_agg(t ORDER BY t::text), '[]') FROM wvs.{table} t")
        for table in KEYS
    }


@pytest.fixture
async def path(pool: Pool) -> AsyncIterator[WritePath]:
    path = write_path(pool)
    yield path
    await path.close()


@pytest.fixture
async def past(path: WritePath) -> Past:
    for number in range(3):
        await lively_past(path, f"w{number}")
    return await lively_past(path, "last")


async def test_a_rebuild_makes_the_same_rows_and_the_same_tables(pool: Pool, database_url: str, past: Past) -> None:
    before, shape = await rows(pool), await pool.fetch(SHAPE)
    done = await rebuild(database_url, EventMapper(), silent)
    assert await rows(pool) == before
    assert [dict(row) for row in await pool.fetch(SHAPE)] == [dict(row) for row in shape]
    assert done.events == await pool.fetchval("SELECT count(*) FROM wvs.events") > 80
    assert await pool.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname IN ('wvs_fresh', 'wvs_retired')") == 0
    await past.drop(await past.ready_snapshot())
    assert (await verify(database_url, EventMapper(), silent)).equal


async def test_a_rebuild_restores_rows_that_were_tampered_with(pool: Pool, database_url: str, past: Past) -> None:
    before = await rows(pool)
    await pool.execute("UPDATE wvs.workspaces SET name = 'other' WHERE id = $1", past.workspace_id)
    await pool.execute("DELETE FROM wvs.trees")
    await pool.execute("UPDATE wvs.snapshots SET certificate = NULL WHERE state = 'ready'")
    assert not (await verify(database_url, EventMapper(), silent)).equal
    await rebuild(database_url, EventMapper(), silent)
    assert await rows(pool) == before


async def test_commands_and_readers_continue_at_full_load(
    pool: Pool, database_url: str, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections have prepared statements whose plans are for the old tables."""
    monkeypatch.setattr("wvs.projections.rebuild.BATCH", 50)
    monkeypatch.setattr("wvs.projections.rebuild.CLOSE_ENOUGH", 40)
    stop = asyncio.Event()
    written = [0, 0, 0, 0]

    async def write(number: int) -> None:
        path = write_path(pool)
        mine = await lively_past(path, f"busy{number}")
        while not stop.is_set():
            asked = await snapshot(path, mine.workspace_id)
            assert asked.answer is not None
            assert b"creating" in asked.answer
            await cancel(path, mine.workspace_id, asked)
            written[number] += 1
        await path.close()

    async def read() -> None:
        listings, readers = Listings(pool), Readers(pool)
        seen = 0
        while not stop.is_set():
            found = await listings.workspaces(WorkspaceFilter(None, None), LATEST, 100)
            assert len(found.rows) >= seen
            seen = len(found.rows)
            assert await readers.workspace(past.workspace_id) is not None
            snapshots = await listings.snapshots(SnapshotFilter(past.workspace_id), LATEST, 100)
            assert len(snapshots.rows) == 5

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(write(number))
        group.create_task(read())
        for _ in range(4):
            behind = list(written)
            await rebuild(database_url, EventMapper(), silent)
            async with asyncio.timeout(60):
                while any(now <= then for now, then in zip(written, behind, strict=True)):
                    await asyncio.sleep(0.01)
        stop.set()
    found = await verify(database_url, EventMapper(), silent)
    assert found.differences == []


@pytest.mark.parametrize(("phase", "number"), [("replay", 2), ("indexes", 1), ("swap", 1)])
async def test_a_killed_rebuild_leaves_the_live_tables_and_the_next_one_continues_it(
    pool: Pool, database_url: str, past: Past, phase: str, number: int
) -> None:
    before = await rows(pool)
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", DYING, database_url, phase, str(number)], check=False, timeout=100
    )
    assert killed.returncode == -signal.SIGKILL
    assert await rows(pool) == before
    position = await pool.fetchval("SELECT position FROM wvs_fresh.progress")
    assert position > 0
    await past.ready_snapshot()
    before = await rows(pool)
    done = await again(database_url)
    assert done.began_at == position
    assert done.position == await pool.fetchval("SELECT max(notification_id) FROM wvs.events")
    assert await rows(pool) == before


async def again(url: str) -> Any:
    """Runs the rebuild as soon as the server has ended the connection of the killed one."""
    ends = time.monotonic() + 60
    while True:
        try:
            return await rebuild(url, EventMapper(), silent)
        except RebuildRunsError:
            assert time.monotonic() < ends
            await asyncio.sleep(0.1)


async def test_a_rebuild_that_other_code_began_is_not_continued(
    pool: Pool, database_url: str, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await rows(pool)
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", DYING, database_url, "indexes", "1"], check=False, timeout=100
    )
    await pool.execute("UPDATE wvs_fresh.progress SET fingerprint = 'of another release'")
    await pool.execute("UPDATE wvs_fresh.workspaces SET name = 'by other rules'")
    assert (await again(database_url)).began_at == 0
    assert await rows(pool) == before


async def test_a_migration_during_a_rebuild_is_not_undone(pool: Pool, database_url: str, past: Past) -> None:
    """Fresh tables with older columns are neither filled further nor swapped in."""

    def progress(phase: str, _reached: int, _end: int) -> None:
        if phase == "indexes":
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute("ALTER TABLE wvs.tasks ADD COLUMN colour text DEFAULT 'red'")

    with pytest.raises(SchemaChangedError):
        await rebuild(database_url, EventMapper(), progress)
    tasks = await pool.fetchval("SELECT count(*) FROM wvs.tasks")
    await pool.execute("UPDATE wvs.tasks SET colour = 'blue'")
    assert (await rebuild(database_url, EventMapper(), silent)).began_at == 0
    assert await pool.fetchval("SELECT count(*) FROM wvs.tasks WHERE colour = 'red'") == tasks > 0
    await past.ready_snapshot()


@pytest.mark.parametrize("topic", ["workspace.painted.v1", "snapshot.requested.v1"])
async def test_an_event_that_cannot_be_read_stops_the_rebuild_and_is_named_by_its_position(
    pool: Pool, database_url: str, past: Past, topic: str
) -> None:
    position = await pool.fetchval(
        "SELECT notification_id FROM wvs.events WHERE originator_id = $1 ORDER BY 1 OFFSET 3 LIMIT 1", past.workspace_id
    )
    await pool.execute(
        'UPDATE wvs.events SET topic = $2, state = \'{"event": {}, "metadata": {}}\' WHERE notification_id = $1',
        position,
        topic,
    )
    before = await rows(pool)
    for work in (rebuild, verify):
        with pytest.raises(PoisonedEventError, match=f"position {position} .*{past.workspace_id}, version 4") as raised:
            await work(database_url, EventMapper(), silent)
        assert raised.value.position == position
    assert await rows(pool) == before


async def test_a_second_rebuild_is_refused(database_url: str, past: Past) -> None:
    refused: list[bool] = []

    async def second() -> None:
        with pytest.raises(RebuildRunsError):
            await rebuild(database_url, EventMapper(), silent)
        refused.append(True)

    started: list[asyncio.Task[None]] = []

    def progress(phase: str, _reached: int, _end: int) -> None:
        if phase == "replay" and not started:
            started.append(asyncio.ensure_future(second()))

    other = await connect(database_url, application_name="holder")
    async with other.transaction():  # keeps the first rebuild from ending before the second is refused
        await other.execute("LOCK TABLE wvs.tasks IN ACCESS SHARE MODE")
        first = asyncio.ensure_future(rebuild(database_url, EventMapper(), progress))
        async with asyncio.timeout(60):
            while not refused:
                await asyncio.sleep(0.01)
    await first
    await other.close()


async def test_a_swap_that_locks_keep_waiting_gives_up_and_blocks_no_command(
    pool: Pool, database_url: str, past: Past
) -> None:
    """A dump holds its locks for a long time; commands behind a waiting swap would wait as long."""
    dump = await connect(database_url, application_name="a dump")
    async with dump.transaction():
        await dump.execute("LOCK TABLE wvs.tasks IN ACCESS SHARE MODE")
        blocked = asyncio.ensure_future(rebuild(database_url, EventMapper(), silent, swap_patience_s=3))
        while not blocked.done():
            await past.ready_snapshot()
        with pytest.raises(SwapBlockedError, match="are kept"):
            await blocked
    await dump.close()
    done = await rebuild(database_url, EventMapper(), silent)
    assert done.began_at > 0
    assert (await verify(database_url, EventMapper(), silent)).equal


async def test_a_column_that_a_later_release_added_takes_its_default(pool: Pool, database_url: str, past: Past) -> None:
    for table in KEYS:
        await pool.execute(f"ALTER TABLE wvs.{table} ADD COLUMN later text NOT NULL DEFAULT 'unset'")
    before = await rows(pool)
    await rebuild(database_url, EventMapper(), silent)
    assert await rows(pool) == before
    assert (await verify(database_url, EventMapper(), silent)).equal


async def test_the_name_of_a_workspace_stays_unique_after_a_rebuild(pool: Pool, database_url: str, past: Past) -> None:
    await rebuild(database_url, EventMapper(), silent)
    name = await pool.fetchval("SELECT name FROM wvs.workspaces WHERE id = $1", past.workspace_id)
    with pytest.raises(asyncpg.UniqueViolationError) as raised:
        await pool.execute(
            "INSERT INTO wvs.workspaces SELECT gen_random_uuid(), $1, 'active', '{}', NULL, NULL, 1, NULL, now()", name
        )
    assert raised.value.constraint_name == "workspaces_name_key"


async def test_a_rebuild_keeps_no_position_without_an_event(pool: Pool, database_url: str, past: Past) -> None:
    """After a crash such a position is assigned again: a rebuild that continued behind it would skip the event."""
    last = await pool.fetchval("SELECT max(notification_id) FROM wvs.events")
    await pool.execute(FAIL)
    await roll_back(write_path(pool), 5)
    assert await pool.fetchval(SEQUENCE) == last + 5
    reached: list[int] = []
    done = await rebuild(database_url, EventMapper(), lambda _phase, position, _end: reached.append(position))
    assert (done.position, max(reached)) == (last, last)
