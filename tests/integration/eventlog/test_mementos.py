"""Mementos on a real Postgres: they are stored as the log grows, they bound a cold load, and never replace the log."""

from typing import Any
from uuid import UUID

import pytest
from tests.integration.eventlog.commanding import activated, cancel, snapshot, write_path

from wvs.application.write_path import WritePath
from wvs.domain.workspace import SCHEMA_VERSION
from wvs.eventlog.aggregates import Aggregates, put_memento
from wvs.eventlog.codec import EventMapper, StoredEvent
from wvs.eventlog.mementos import MEMENTO_EVERY
from wvs.postgres.pool import Pool


class CountingMapper(EventMapper):
    """Counts what it decodes: the events that a load replays."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded = 0

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        self.decoded += 1
        return super().to_domain_event(stored_event)


async def replayed(pool: Pool, workspace_id: UUID) -> int:
    """How many events a process replays when it first loads the workspace."""
    mapper = CountingMapper()
    await write_path(pool, mapper).load(workspace_id)
    return mapper.decoded


async def grown(path: WritePath, workspace_id: UUID, version: int) -> None:
    """Requests and cancels snapshots until the workspace has at least `version` events."""
    while True:
        cancelled = await cancel(path, workspace_id, await snapshot(path, workspace_id))
        assert cancelled.workspace is not None
        if cancelled.workspace.version >= version:
            return


async def stored(path: WritePath, pool: Pool, workspace_id: UUID) -> None:
    """Stores a memento of the workspace as it is."""
    memento = await path.aggregates.memento(workspace_id)
    assert memento is not None
    async with pool.acquire() as connection:
        await put_memento(connection, workspace_id, memento)


@pytest.fixture
async def path(pool: Pool) -> WritePath:
    return write_path(pool)


async def test_a_memento_is_written_every_500_events_and_bounds_the_cold_load(path: WritePath, pool: Pool):
    workspace_id = await activated(path, "one")
    await grown(path, workspace_id, MEMENTO_EVERY - 3)
    await path.close()
    assert await pool.fetchval("SELECT count(*) FROM wvs.mementos") == 0
    for n in (1, 2):
        await grown(path, workspace_id, n * MEMENTO_EVERY + 10)
        await path.close()
        assert 0 <= await pool.fetchval("SELECT version FROM wvs.mementos") - n * MEMENTO_EVERY < 10
        assert await replayed(pool, workspace_id) <= 20
    assert await write_path(pool).load(workspace_id) == await path.load(workspace_id)


@pytest.mark.parametrize(
    "damage",
    [
        f"schema_version = {SCHEMA_VERSION + 1}",
        f"schema_version = {SCHEMA_VERSION - 1}",
        "state = '\\x00'",
        "state = ''",
        "state = substr(state, 1, length(state) - 1)",
        "state = set_byte(state, length(state) / 2, get_byte(state, length(state) / 2) # 1)",
        "version = version - 1, hash = (SELECT hash FROM wvs.events WHERE originator_version = version - 1)",
        "version = version + 1000",
        "hash = sha256('')",
    ],
)
async def test_a_memento_that_is_damaged_or_of_another_schema_is_discarded(damage: str, path: WritePath, pool: Pool):
    workspace_id = await activated(path, "one")
    await grown(path, workspace_id, 20)
    await stored(path, pool, workspace_id)
    assert await replayed(pool, workspace_id) == 0

    await pool.execute(f"UPDATE wvs.mementos SET {damage}")
    assert await replayed(pool, workspace_id) >= 20
    fresh = write_path(pool)
    assert await fresh.load(workspace_id) == await path.load(workspace_id)
    await snapshot(fresh, workspace_id)


async def test_a_process_that_replayed_many_events_stores_a_memento(path: WritePath, pool: Pool):
    workspace_id = await activated(path, "one")
    await grown(path, workspace_id, MEMENTO_EVERY + 10)
    await path.close()
    await pool.execute("DELETE FROM wvs.mementos")
    assert await replayed(pool, workspace_id) > MEMENTO_EVERY
    assert await replayed(pool, workspace_id) == 0


async def test_an_older_memento_never_replaces_a_later_one(path: WritePath, pool: Pool):
    workspace_id = await activated(path, "one")
    early = await path.aggregates.memento(workspace_id)
    assert early is not None
    await grown(path, workspace_id, 20)
    await stored(path, pool, workspace_id)
    async with pool.acquire() as connection:
        await put_memento(connection, workspace_id, early)
    assert await replayed(pool, workspace_id) == 0


async def test_the_cache_is_bounded_by_entries_and_evicts_the_least_recently_used(path: WritePath, pool: Pool):
    ids = [await activated(path, f"ws-{n}") for n in range(5)]
    for workspace_id in ids:
        await grown(path, workspace_id, 23)
    # each has one entry of its own, one for its init task, 10 for snapshots and 10 for their tasks
    small = Aggregates(EventMapper(), max_entries=3 * 22)
    async with pool.acquire() as connection:
        for workspace_id in [*ids[:3], ids[0], ids[3], ids[4]]:
            await small.load(connection, workspace_id)
    assert [workspace_id for workspace_id in ids if small.cached(workspace_id)] == [ids[0], ids[3], ids[4]]


async def test_a_single_workspace_beyond_the_bound_stays_cached(path: WritePath, pool: Pool):
    workspace_id = await activated(path, "one")
    await grown(path, workspace_id, 23)
    tiny = Aggregates(EventMapper(), max_entries=5)
    async with pool.acquire() as connection:
        await tiny.load(connection, workspace_id)
    assert tiny.cached(workspace_id) is not None


async def test_a_cached_workspace_that_is_ahead_of_a_restored_database_is_evicted(path: WritePath, pool: Pool):
    workspace_id = await activated(path, "one")
    kept = await pool.fetchrow("SELECT version, hash FROM wvs.streams")
    assert kept is not None
    for _ in range(5):
        await snapshot(path, workspace_id)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("DELETE FROM wvs.events WHERE originator_version > $1", kept["version"])
        await connection.execute("UPDATE wvs.streams SET version = $1, hash = $2", *kept)
        for table in ("snapshots", "queue"):
            await connection.execute(f"DELETE FROM wvs.{table}")
        await connection.execute("DELETE FROM wvs.tasks WHERE kind <> 'workspace_init'")
    await snapshot(path, workspace_id)
    assert await path.load(workspace_id) == await write_path(pool).load(workspace_id)
    assert await pool.fetchval("SELECT version FROM wvs.streams") == kept["version"] + 1
