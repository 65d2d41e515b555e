"""Who holds the log's watermark back: appends of this release and of the one before, and nobody else."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from tests.integration.eventlog.commanding import ORIGIN, activated, created, now, write_path
from tests.integration.eventlog.race_writers import LATE

from wvs.domain.commands import CreateWorkspace
from wvs.eventlog.reading.follower import read_page, safe_position, watermark_holder
from wvs.http.watermark_watch import WatermarkWatch
from wvs.postgres.locks import WATERMARK
from wvs.postgres.pool import OwnConnection, Pool, connect
from wvs.postgres.sources import database_files
from wvs.telemetry.metrics import Metrics

MIGRATION = "20261129000230_watermark_of_our_own.sql"
OLD_LEAST_KEY = """
SELECT min((l.classid::bigint << 32) | l.objid::bigint) FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.mode = 'ShareLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""W as readers of the release before ask for it."""
COMMIT_LATE = f"""
CREATE FUNCTION commit_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(777, 777);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER commit_late AFTER INSERT ON wvs.events DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.actor = '{LATE}') EXECUTE FUNCTION commit_late();
"""
"""A late actor's transaction commits only when nobody holds the lock (777, 777)."""
LAST = "SELECT max(notification_id) FROM wvs.events"


@asynccontextmanager
async def foreign(database_url: str, statement: str) -> AsyncIterator[OwnConnection]:
    """A session of another application that has executed `statement`."""
    connection = await connect(database_url, application_name="another application")
    await connection.execute(statement)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def append_in_flight(pool: Pool, database_url: str) -> AsyncIterator[None]:
    """A create has its positions and is not committed while the block lasts."""
    await pool.execute(COMMIT_LATE)
    async with foreign(database_url, "SELECT pg_advisory_lock(777, 777)"):
        path = write_path(pool)
        command, late = CreateWorkspace("in-flight", {}, uuid.uuid4()), replace(ORIGIN, actor=LATE)
        creating = asyncio.create_task(path.execute(uuid.uuid4(), command, at=now(), origin=late))
        waiting = "SELECT count(*) FROM pg_locks WHERE objsubid = 2 AND classid = 777 AND NOT granted"
        while await pool.fetchval(waiting) == 0:
            assert not creating.done(), creating
            await asyncio.sleep(0.01)
        yield
    await creating
    await path.close()


KEYS = [*range(100), -1, 2**31, 2**48 + 1, 2**62, -(2**63), 2**63 - 1]


@pytest.mark.parametrize("kind", ["pg_advisory_lock_shared", "pg_advisory_lock"])
async def test_locks_of_another_application_stop_neither_readers_nor_writers(
    pool: Pool, database_url: str, kind: str
) -> None:
    path = write_path(pool)
    await activated(path, "one")
    locks = f"SELECT {kind}(key) FROM unnest('{{{','.join(map(str, KEYS))}}}'::bigint[]) AS key"
    async with foreign(database_url, locks):
        async with asyncio.timeout(5):
            await activated(path, "two")
        async with pool.acquire() as connection:
            assert await watermark_holder(connection) is None
            assert await safe_position(connection) == await pool.fetchval(LAST) == 6
            assert len((await read_page(connection, 0, 100)).rows) == 6
    await path.close()


async def test_a_transaction_that_reads_the_log_and_holds_a_lock_of_its_own_stops_no_reader(
    pool: Pool, database_url: str
) -> None:
    path = write_path(pool)
    dump = "BEGIN; SELECT pg_advisory_xact_lock_shared(1); SELECT * FROM wvs.streams; SELECT * FROM wvs.events"
    async with foreign(database_url, dump), pool.acquire() as connection:
        await activated(path, "one")
        assert await safe_position(connection) == 3
    await path.close()


async def test_readers_wait_for_an_append_in_flight(pool: Pool, database_url: str) -> None:
    path = write_path(pool)
    await activated(path, "before")
    async with append_in_flight(pool, database_url), pool.acquire() as connection:
        await activated(path, "overtakes")
        assert await pool.fetchval(LAST) == 7
        assert await safe_position(connection) == 3
    async with pool.acquire() as connection:
        assert await safe_position(connection) == 7
        assert len((await read_page(connection, 3, 100)).rows) == 4
    await path.close()


async def test_readers_wait_for_an_append_that_the_release_before_has_in_flight(pool: Pool, database_url: str) -> None:
    """It holds the bare position: its call began before the migration that gave keys their id."""
    text = (database_files("migrations") / MIGRATION).read_text(encoding="utf-8")
    _, _, down = text.partition("-- migrate:down")
    previous, _, _ = down.partition("DROP FUNCTION")
    assert "pg_advisory_xact_lock_shared(coalesce(pg_sequence_last_value" in previous
    await pool.execute(previous)
    await test_readers_wait_for_an_append_in_flight(pool, database_url)


async def test_readers_of_the_release_before_wait_for_an_append_of_this_one(pool: Pool, database_url: str) -> None:
    path = write_path(pool)
    await activated(path, "before")
    async with append_in_flight(pool, database_url):
        await activated(path, "overtakes")
        assert await pool.fetchval(OLD_LEAST_KEY) == 3
    await path.close()


async def test_a_transaction_that_holds_readers_back_is_named_in_the_log_and_in_metrics(
    pool: Pool, database_url: str
) -> None:
    metrics = Metrics()
    held = f"BEGIN; SELECT pg_advisory_xact_lock_shared(({WATERMARK}::bigint << 48) | 3)"

    def age() -> float:
        value = metrics.registry.get_sample_value("wvs_watermark_age_seconds")
        assert value is not None
        return value

    with capture_logs() as logs:
        async with WatermarkWatch(pool, metrics, look_every_s=0.05, stuck_s=0.5).running():
            async with foreign(database_url, held) as holder:
                pid = holder.get_server_pid()
                async with asyncio.timeout(20):
                    while age() < 0.8:
                        await asyncio.sleep(0.05)
                labels = {"application": "another application", "pid": str(pid)}
                assert (metrics.registry.get_sample_value("wvs_watermark_holder_age_seconds", labels) or 0) >= 0.5
            async with asyncio.timeout(20):
                while age() > 0:
                    await asyncio.sleep(0.05)
            assert "wvs_watermark_holder_age_seconds{" not in metrics.render().decode()
    stuck = [entry for entry in logs if entry["event"] == "http.watermark_stuck"]
    assert len(stuck) == 1
    assert (stuck[0]["pid"], stuck[0]["application"], stuck[0]["after_position"]) == (pid, "another application", 3)
    assert stuck[0]["state"] == "idle in transaction"
    assert stuck[0]["transaction_age_s"] >= 0.5
    assert [entry["pid"] for entry in logs if entry["event"] == "http.watermark_moves"] == [pid]


async def test_short_appends_one_after_the_other_are_no_stuck_watermark(pool: Pool) -> None:
    metrics, path = Metrics(), write_path(pool)
    with capture_logs() as logs:
        async with WatermarkWatch(pool, metrics, look_every_s=0.001, stuck_s=0.3).running():
            ends = now().timestamp() + 1.5
            n = 0
            while now().timestamp() < ends:
                n += 1
                await created(path, f"ws-{n}")
    assert [entry for entry in logs if entry["event"].startswith("http.watermark")] == []
    await path.close()
