"""PostgreSQL crashes after appends that were rolled back: positions are assigned again, and nobody skips an event.

The advance of the sequence by an append that rolls back is not durable, and a long `wal_writer_delay` keeps it so until
the crash. A reader that takes the sequence's value as its position must lose events in that run; otherwise the run
proves nothing.

WVS_RACE_CRASHES   how often the server crashes (make race sets it higher)
"""

import asyncio
import contextlib
import os
import random
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from tests.integration.eventlog.commanding import ORIGIN, activated, cancel, created, now, snapshot, write_path
from tests.integration.eventlog.race_writers import LATE
from tests.integration.eventlog.test_race import HOLD_OPEN, LOG, Row, assert_in_order

from wvs.application.write_path import WritePath
from wvs.domain.commands import CreateWorkspace
from wvs.domain.errors import Refused
from wvs.eventlog.reading.follower import check_sequence, complete_until, read_page, safe_position
from wvs.eventlog.reading.workspace_log import read_workspace_page
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import Connection, Pool, close, connect, create_pool

CRASHES = int(os.environ.get("WVS_RACE_CRASHES", "3"))
WRITERS = 6
PRELOGGED = 32
"""Positions that PostgreSQL makes durable ahead of their use (SEQ_LOG_VALS in sequence.c)."""

ROLLED_BACK = "rolled back"
"""The actor whose appends fail after they have got a position."""
FAIL = f"""
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'rolled back by the test'; END $$;
CREATE TRIGGER roll_back AFTER INSERT ON wvs.events
FOR EACH ROW WHEN (NEW.actor = '{ROLLED_BACK}') EXECUTE FUNCTION fail();
"""
SEQUENCE = "SELECT coalesce(pg_sequence_last_value('wvs.events_notification_id_seq'), 0)"


class Follower:
    """Reads on from its position, across crashes. The position is all that it keeps, as a client does."""

    def __init__(self, name: str, after: int, workspace_id: UUID | None = None) -> None:
        self.name = name
        self.after = after
        self.rows: list[Row] = []
        self._workspace_id = workspace_id

    async def read(self, connection: Connection, limit: int = 50) -> bool:
        """Reads a page; whether it had rows."""
        if self._workspace_id is None:
            page = await read_page(connection, self.after, limit)
        else:
            page = await read_workspace_page(connection, self._workspace_id, self.after, limit)
        self.rows += page.rows
        self.after = page.safe
        return bool(page.rows)

    def missed(self, log: list[Row], known: set[tuple[UUID, int]]) -> list[Row]:
        """What the follower should have read and has not. `known` is what was committed before it began."""
        got = set(self.rows)
        wanted = (row for row in log if (row[1], row[2]) not in known)
        return [row for row in wanted if row not in got and self._workspace_id in (None, row[1])]


class Careless(Follower):
    """The tempting wrong way: it keeps the end of the range that it has read, though no event stands there."""

    async def read(self, connection: Connection, limit: int = 50) -> bool:
        until = await complete_until(connection)
        found = await connection.fetch(
            f"{LOG} WHERE notification_id > $1 AND notification_id <= $2 ORDER BY notification_id", self.after, until
        )
        self.rows += [tuple(row) for row in found]
        self.after = max(self.after, until)
        return bool(found)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    tmp_path.chmod(0o755)
    lazy = {"wal_writer_delay": "10s"}
    with EmbeddedPostgres(
        tmp_path, durable=False, settings=lazy, binaries=Path(binaries) if binaries else None
    ) as server:
        yield server


async def crash(server: EmbeddedPostgres) -> None:
    """An immediate stop: nothing is written that no commit has waited for."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)
    while server.pid is not None:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


async def kill_a_backend(server: EmbeddedPostgres) -> None:
    """The server ends every session and recovers by itself."""
    victim = await connect(server.url(), application_name="victim")
    witness = await connect(server.url(), application_name="witness")
    os.kill(await victim.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
    with contextlib.suppress(*CONNECTION_LOST):
        while True:
            await witness.fetchval("SELECT 1")
            await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        while True:
            try:
                await close(await connect(server.url(), application_name="crashed"))
            except CONNECTION_LOST:
                await asyncio.sleep(0.05)
            else:
                return


async def roll_back(path: WritePath, count: int) -> None:
    """Appends that take a position and fail."""
    for n in range(count):
        command = CreateWorkspace(f"never-{n}", {}, uuid.uuid4())
        with pytest.raises(asyncpg.RaiseError):
            await path.execute(uuid.uuid4(), command, at=now(), origin=replace(ORIGIN, actor=ROLLED_BACK))


async def write(path: WritePath, workspace_id: UUID, actor: str, done: asyncio.Event) -> None:
    """Commits and rolls back in turn until it is done or the server is gone."""
    origin = replace(ORIGIN, actor=actor)
    while not done.is_set():
        try:
            asked = await snapshot(path, workspace_id, origin=origin)
            if actor != LATE:
                await roll_back(path, random.randint(0, 3))
            await cancel(path, workspace_id, asked, origin=origin)
        except CONNECTION_LOST:
            return


async def read_all(url: str, followers: list[Follower]) -> None:
    """Lets each follower read until no row follows."""
    connection = await connect(url, application_name="follower")
    for follower in followers:
        while await follower.read(connection):
            pass
    await connection.close()


async def read_until(url: str, followers: list[Follower], done: asyncio.Event) -> None:
    """Lets the followers read side by side with the writers."""

    async def one(follower: Follower) -> None:
        connection = await connect(url, application_name="follower")
        while not done.is_set():
            if not await follower.read(connection, limit=7):
                await asyncio.sleep(0.002)
        await connection.close()

    await asyncio.gather(*map(one, followers))


async def rows_of(pool: Pool) -> list[Row]:
    return [tuple(row) for row in await pool.fetch(f"{LOG} ORDER BY notification_id")]


class Run:
    """The run's followers, with what each of them could not see because it was there before."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sound: list[tuple[Follower, set[tuple[UUID, int]]]] = []
        self.careless: list[tuple[Follower, set[tuple[UUID, int]]]] = []

    def followers(self) -> list[Follower]:
        return [follower for follower, _ in (*self.sound, *self.careless)]

    async def begin(self, pool: Pool, workspace_id: UUID, name: str) -> None:
        """New followers that start now, as a stream without a position does."""
        async with pool.acquire() as connection:
            start = await safe_position(connection)
            assigned = await complete_until(connection)
        known = {(row[1], row[2]) for row in await rows_of(pool) if row[0] <= start}
        self.sound.append((Follower(f"{name}, whole log", start), known))
        self.sound.append((Follower(f"{name}, one workspace", start, workspace_id), known))
        self.careless.append((Careless(f"{name}, careless", assigned), known))


async def race(run: Run, pool: Pool, workspaces: list[UUID]) -> None:
    """Half a second of writers and followers side by side."""
    path, done = write_path(pool), asyncio.Event()
    actors = [LATE, *["ordinary"] * (len(workspaces) - 1)]
    writing = [
        asyncio.create_task(write(path, workspace_id, actor, done))
        for workspace_id, actor in zip(workspaces, actors, strict=True)
    ]
    reading = asyncio.create_task(read_until(run.url, run.followers(), done))
    await asyncio.sleep(0.5)
    done.set()
    await asyncio.gather(*writing, reading)
    await path.close()


@pytest.mark.timeout(120 + 20 * CRASHES)
async def test_no_follower_skips_an_event_at_a_position_that_is_assigned_again_after_a_crash(
    server: EmbeddedPostgres,
) -> None:
    await migrate(server.url())
    run = Run(server.url())
    pool = await create_pool(server.url(), application_name="writer", size=WRITERS)
    await pool.execute(HOLD_OPEN + FAIL)
    path = write_path(pool)
    workspaces = [await activated(path, f"ws-{n}") for n in range(WRITERS)]
    await run.begin(pool, workspaces[1], "from the beginning")
    assigned_again = 0
    for n in range(CRASHES):
        await race(run, pool, workspaces)
        await roll_back(path, PRELOGGED + 1 + random.randint(0, PRELOGGED))
        await run.begin(pool, workspaces[1], f"before crash {n + 1}")
        await read_all(run.url, run.followers())
        handed_out = await pool.fetchval(SEQUENCE)
        await (crash, kill_a_backend)[n % 2](server)
        pool.terminate()
        pool = await create_pool(server.url(), application_name="writer", size=WRITERS)
        path = write_path(pool)
        assigned_again += max(0, handed_out - await pool.fetchval(SEQUENCE))
        for m in range(3):
            await created(path, f"after-crash-{n}-{m}")
        await snapshot(path, workspaces[1])
        async with pool.acquire() as connection:
            await check_sequence(connection)
    await race(run, pool, workspaces)
    await read_all(run.url, run.followers())

    log = await rows_of(pool)
    assert_in_order(log)
    assert assigned_again > 0, "the crashes took back no position: the run proved nothing"
    assert {follower.name: lost for follower, known in run.sound if (lost := follower.missed(log, known))} == {}
    for follower, _ in run.sound:
        assert len(set(follower.rows)) == len(follower.rows)
        assert [row[0] for row in follower.rows] == sorted(row[0] for row in follower.rows)
        assert follower.after == log[-1][0]
    lost = sum(len(follower.missed(log, known)) for follower, known in run.careless)
    print(f"{CRASHES} crashes took back {assigned_again} positions; careless followers lost {lost} events")  # noqa: T201
    assert lost > 0, "a reader that keeps positions without events lost none: the run proved nothing"
    await path.close()
    pool.terminate()


async def test_no_position_without_an_event_is_given_out(pool: Pool) -> None:
    path = write_path(pool)
    await pool.execute(FAIL)
    await roll_back(path, 3)
    async with pool.acquire() as connection:
        assert (await read_page(connection, 0, 10)).safe == 0
        assert await safe_position(connection) == 0
        workspace_id = await activated(path, "one")
        last = await safe_position(connection)
        assert last == (await rows_of(pool))[-1][0] == 6
        await roll_back(path, 3)
        assert await complete_until(connection) == 9
        assert await safe_position(connection) == last
        assert (await read_page(connection, last, 10)).safe == last
        assert (await read_workspace_page(connection, workspace_id, last, 10)).safe == last
        assert (await read_workspace_page(connection, workspace_id, 4, 10)).safe == last
        other = await activated(path, "two")
        passed = await read_workspace_page(connection, workspace_id, last, 10)
        assert (passed.rows, passed.safe) == ([], (await rows_of(pool))[-1][0]), other


async def test_a_refused_create_takes_no_position(pool: Pool) -> None:
    path = write_path(pool)
    await created(path, "taken")
    before = await pool.fetchval(SEQUENCE)
    for _ in range(3):
        with pytest.raises(Refused, match="has this name"):
            await created(path, "taken")
    assert await pool.fetchval(SEQUENCE) == before


@pytest.mark.parametrize("level", ["off", "on"])
async def test_an_event_is_durable_before_it_is_visible_whatever_the_default_of_the_role(
    database_url: str, level: str
) -> None:
    connection = await connect(database_url, application_name="writer")
    await connection.execute(f"SET synchronous_commit = {level}")
    async with connection.transaction():
        await connection.execute("SELECT wvs.hold_watermark()")
        assert await connection.fetchval("SHOW synchronous_commit") == {"off": "local", "on": "on"}[level]
    assert await connection.fetchval("SHOW synchronous_commit") == level
    await connection.close()
