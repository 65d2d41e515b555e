"""A connection ends in the middle of a commit: the write path looks up the outcome, and the command has effect once."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
import pytest
from tests.integration.eventlog.commanding import activated, created, key_of, snapshot, write_path
from tests.integration.eventlog.cutting import Cut, CuttingProxy, cutting_proxy

from wvs.application.write_path import Committed, OutcomeUnknownError, WritePath
from wvs.domain.errors import ErrorCode, Refused
from wvs.eventlog.recorder import IdempotencyKey
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.pool import Pool, create_pool

SLOW_COMMIT = """
CREATE FUNCTION hold_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.5);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER commit_late AFTER INSERT ON wvs.events DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION hold_open();
"""

# Only the request of the commit contains names of events.
CREATION = b"workspace.created.v2"
REQUEST = b"snapshot.requested.v1"
KEYS = [key_of("k1"), None]


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(database_url) as proxy:
        yield proxy


@pytest.fixture
async def path(proxy: CuttingProxy) -> AsyncIterator[WritePath]:
    """A write path that reaches its database through the proxy."""
    pool = await create_pool(proxy.url, application_name="behind the proxy", size=4)
    yield write_path(pool)
    pool.terminate()


def shown(committed: Committed, kind: str) -> UUID:
    return UUID(msgspec.json.decode(committed.answer or b"{}")[kind]["id"])


async def assert_written_once(path: WritePath, pool: Pool, workspace_id: UUID, committed: Committed) -> None:
    """The workspace has only the snapshot of the answer, and the cached state equals the stored one."""
    rows = await pool.fetch("SELECT id FROM wvs.snapshots WHERE workspace_id = $1", workspace_id)
    assert [row["id"] for row in rows] == [shown(committed, "snapshot")]
    assert await pool.fetchval("SELECT count(*) FROM wvs.queue WHERE workspace_id = $1", workspace_id) == 1
    cached = path.aggregates.cached(workspace_id)
    assert cached is not None
    assert cached.workspace == committed.workspace == await write_path(pool).load(workspace_id)
    await snapshot(path, workspace_id)  # the next command succeeds


@pytest.mark.parametrize("how", Cut)
@pytest.mark.parametrize("key", KEYS, ids=["keyed", "unkeyed"])
async def test_a_command_takes_effect_once_wherever_its_connection_is_cut(
    how: Cut, key: IdempotencyKey | None, path: WritePath, pool: Pool, proxy: CuttingProxy
):
    workspace_id = await activated(path, "one")
    proxy.cut(REQUEST, how)
    committed = await snapshot(path, workspace_id, key)

    assert proxy.cuts == 1
    assert len(committed.events) == 1
    assert committed.status == 202
    if key is not None:
        again = await snapshot(path, workspace_id, key)
        assert (again.replayed, again.status, again.answer) == (True, 202, committed.answer)
    await assert_written_once(path, pool, workspace_id, committed)


@pytest.mark.parametrize("how", Cut)
@pytest.mark.parametrize("key", KEYS, ids=["keyed", "unkeyed"])
async def test_a_workspace_is_created_once_wherever_the_connection_is_cut(
    how: Cut, key: IdempotencyKey | None, path: WritePath, pool: Pool, proxy: CuttingProxy
):
    await created(path, "another")
    workspace_id = uuid.uuid4()
    proxy.cut(CREATION, how)
    _, committed = await created(path, "one", key, workspace_id)

    assert proxy.cuts == 1
    assert shown(committed, "workspace") == workspace_id
    assert await pool.fetchval("SELECT count(*) FROM wvs.streams") == 2
    assert await pool.fetchval("SELECT count(*) FROM wvs.events") == 2
    assert await write_path(pool).load(workspace_id) == committed.workspace


@pytest.mark.parametrize("key", KEYS, ids=["keyed", "unkeyed"])
async def test_the_write_path_waits_for_a_commit_that_is_still_running(
    key: IdempotencyKey | None, path: WritePath, pool: Pool, proxy: CuttingProxy
):
    workspace_id = await activated(path, "one")
    await pool.execute(SLOW_COMMIT)
    proxy.cut(REQUEST, Cut.BEHIND_THE_REQUEST)
    committed = await snapshot(path, workspace_id, key)

    assert proxy.cuts == 1
    await assert_written_once(path, pool, workspace_id, committed)


@pytest.mark.parametrize("key", KEYS, ids=["keyed", "unkeyed"])
async def test_the_write_path_waits_for_a_creation_that_is_still_running(
    key: IdempotencyKey | None, path: WritePath, pool: Pool, proxy: CuttingProxy
):
    await created(path, "another")
    await pool.execute(SLOW_COMMIT)
    workspace_id = uuid.uuid4()
    proxy.cut(CREATION, Cut.BEHIND_THE_REQUEST)
    _, committed = await created(path, "one", key, workspace_id)

    assert shown(committed, "workspace") == workspace_id
    assert await pool.fetchval("SELECT count(*) FROM wvs.streams") == 2
    assert await pool.fetchval("SELECT count(*) FROM wvs.events") == 2


async def test_a_commit_whose_session_the_server_ends_is_repeated(path: WritePath, pool: Pool):
    workspace_id = await activated(path, "one")
    await pool.execute(SLOW_COMMIT)
    asked = asyncio.create_task(snapshot(path, workspace_id, key_of("k1")))
    ended = False
    while not ended and not asked.done():
        ended = await pool.fetchval(
            "SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event = 'PgSleep'"
        )
        await asyncio.sleep(0.01)
    committed = await asked

    assert ended
    await assert_written_once(path, pool, workspace_id, committed)


async def test_a_refusal_whose_answer_is_lost_is_refused_again(path: WritePath, pool: Pool, proxy: CuttingProxy):
    await created(path, "one")
    workspace_id = uuid.uuid4()
    proxy.cut(CREATION, Cut.BEFORE_THE_ANSWER)
    with pytest.raises(Refused) as refused:
        await created(path, "one", key_of("k1"), workspace_id)

    assert proxy.cuts == 1
    assert refused.value.code is ErrorCode.WORKSPACE_NAME_TAKEN
    assert await pool.fetchval("SELECT count(*) FROM wvs.streams") == 1


async def test_an_outcome_that_cannot_be_found_is_unknown_and_its_key_gives_it_later(pool: Pool, database_url: str):
    async with cutting_proxy(database_url) as proxy:
        behind = await create_pool(proxy.url, application_name="behind the proxy", size=1)
        path = write_path(behind, settle_s=0.3)
        workspace_id = await activated(path, "one")
        proxy.cut(REQUEST, Cut.BEFORE_THE_ANSWER)
        asked = asyncio.create_task(snapshot(path, workspace_id, key_of("k1")))
        while not proxy.cuts:
            await asyncio.sleep(0)
        proxy.refuse()
        with pytest.raises(OutcomeUnknownError):
            await asked
        behind.terminate()
    later = await snapshot(write_path(pool), workspace_id, key_of("k1"))
    assert later.replayed
    assert await pool.fetchval("SELECT id FROM wvs.snapshots") == shown(later, "snapshot")


async def test_a_command_that_never_reached_the_database_has_no_unknown_outcome(database_url: str):
    async with cutting_proxy(database_url) as proxy:
        behind = await create_pool(proxy.url, application_name="behind the proxy", size=1)
        path = write_path(behind)
        workspace_id = await activated(path, "one")
        await behind.expire_connections()
        proxy.refuse()
        with pytest.raises(CONNECTION_LOST):
            await snapshot(path, workspace_id, key_of("k1"))
        behind.terminate()
