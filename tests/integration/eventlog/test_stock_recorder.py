"""The stock Postgres recorder of `eventsourcing[postgres]` reads the log of WVS, and our mapper decodes its results."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from eventsourcing.compressor import ZlibCompressor
from eventsourcing.cryptography import AESCipher
from eventsourcing.persistence import EventStore, InternalError, ProgrammingError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from eventsourcing.utils import Environment
from psycopg.conninfo import conninfo_to_dict
from tests.integration.eventlog.commanding import ORIGIN, activated, cancel, now, snapshot, write_path

from wvs.application.write_path import WritePath
from wvs.domain.commands import DisableWorkspace
from wvs.domain.evolve import fold
from wvs.domain.workspace import Workspace
from wvs.eventlog.codec import EventMapper, RecordedEvent, UnknownEventError
from wvs.postgres.pool import Pool

CATALOG = """
SELECT 'relation', oid::text, relname::text, xmin::text FROM pg_class WHERE relnamespace = 'wvs'::regnamespace
UNION ALL SELECT 'type', oid::text, typname::text, xmin::text FROM pg_type WHERE typnamespace = 'wvs'::regnamespace
UNION ALL SELECT 'function', oid::text, proname::text, xmin::text FROM pg_proc WHERE pronamespace = 'wvs'::regnamespace
ORDER BY 1, 2
"""


def aes(key: str | None = None) -> AESCipher:
    return AESCipher(Environment(env={"CIPHER_KEY": key or AESCipher.create_key(32)}))


MAPPERS = {
    "plain": EventMapper(),
    "zlib": EventMapper(compressor=ZlibCompressor()),
    "aes": EventMapper(cipher=aes()),
    "zlib-aes": EventMapper(compressor=ZlibCompressor(), cipher=aes()),
}


def open_datastore(url: str) -> PostgresDatastore:
    address: dict[str, Any] = conninfo_to_dict(url)
    return PostgresDatastore(
        dbname=address["dbname"],
        host=address["host"],
        port=address.get("port", 5432),
        user=address["user"],
        password=address.get("password", ""),
        schema="wvs",
    )


@pytest.fixture
def recorder(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresApplicationRecorder]:
    """The stock recorder on our table, in sessions that the server limits to reading."""
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    with open_datastore(database_url) as datastore:
        yield PostgresApplicationRecorder(datastore, events_table_name="events")


async def written(path: WritePath) -> list[Workspace]:
    """Three workspaces with interleaved events, one of them disabled with tasks in its queue."""
    ids = [await activated(path, f"ws-{n}") for n in range(3)]
    for n in range(12):
        workspace_id = ids[n % 3]
        asked = await snapshot(path, workspace_id)
        if n % 2:
            await cancel(path, workspace_id, asked)
    await path.execute(ids[0], DisableWorkspace("over"), at=now(), origin=ORIGIN)
    loaded = [await path.load(workspace_id) for workspace_id in ids]
    return [workspace for workspace in loaded if workspace is not None]


@pytest.mark.parametrize("name", MAPPERS)
async def test_every_workspace_reads_back_as_the_state_that_the_write_path_has(
    name: str, pool: Pool, recorder: PostgresApplicationRecorder
):
    mapper = MAPPERS[name]
    workspaces = await written(write_path(pool, mapper))
    assert len(workspaces) == 3
    for workspace in workspaces:
        stored = recorder.select_events(workspace.id)
        recorded: list[RecordedEvent] = [mapper.to_domain_event(event) for event in stored]
        assert [r.originator_version for r in recorded] == list(range(1, workspace.version + 1))
        assert fold(workspace.id, [r.event for r in recorded]) == workspace
        assert recorded == list(EventStore(mapper, recorder).get(workspace.id))
        assert (b'"metadata"' in stored[0].state) == (name == "plain")
        assert [mapper.to_domain_event(event) for event in recorder.select_events(workspace.id, desc=True)] == (
            recorded[::-1]
        )
        assert [e.originator_version for e in recorder.select_events(workspace.id, gt=2, lte=5, limit=2)] == [3, 4]


async def test_the_notifications_are_the_whole_log_in_its_order(pool: Pool, recorder: PostgresApplicationRecorder):
    await written(write_path(pool))
    rows = await pool.fetch(
        "SELECT notification_id, originator_id, originator_version, topic, state FROM wvs.events ORDER BY 1"
    )
    read: list[tuple[Any, ...]] = []
    while page := recorder.select_notifications(read[-1][0] if read else 0, limit=7, inclusive_of_start=False):
        read += [(n.id, n.originator_id, n.originator_version, n.topic, n.state) for n in page]
    assert read == [tuple(row) for row in rows]
    assert recorder.max_notification_id() == rows[-1]["notification_id"]
    cancelled = recorder.select_notifications(1, limit=100, topics=["task.cancelled.v1"])
    assert {n.id for n in cancelled} == {row[0] for row in rows if row["topic"] == "task.cancelled.v1"} != set()


async def test_reading_creates_and_alters_nothing(pool: Pool, recorder: PostgresApplicationRecorder):
    before = await pool.fetch(CATALOG)
    (workspace, *_) = await written(write_path(pool))
    assert recorder.select_events(workspace.id)
    assert recorder.select_notifications(1, limit=10)
    assert await pool.fetch(CATALOG) == before
    with pytest.raises(InternalError, match="read-only"):  # the server refuses: the recorder could not have written
        recorder.create_table()


async def test_the_stock_recorder_cannot_write_past_the_hash_chain(pool: Pool, database_url: str):
    event = StoredEvent(uuid.uuid4(), 1, "workspace.created.v2", b"{}")
    with open_datastore(database_url) as datastore:
        recorder = PostgresApplicationRecorder(datastore, events_table_name="events")
        with pytest.raises(ProgrammingError):
            recorder.insert_events([event])
    assert await pool.fetchval("SELECT count(*) FROM wvs.events") == 0


async def test_an_encrypted_event_is_refused_without_its_key_and_never_skipped(pool: Pool, database_url: str):
    (workspace, *_) = await written(write_path(pool, MAPPERS["aes"]))
    for stranger in (EventMapper(), EventMapper(cipher=aes()), EventMapper(compressor=ZlibCompressor())):
        with pytest.raises(UnknownEventError, match=f"workspace {workspace.id}, version 1:"):
            await write_path(pool, stranger).load(workspace.id)
    assert await write_path(pool, MAPPERS["aes"]).load(workspace.id) == workspace


def test_the_layout_is_the_one_that_the_library_would_create(recorder: PostgresApplicationRecorder, database_url: str):
    (create,) = [s.as_string() for s in recorder.sql_create_statements if "CREATE TABLE" in s.as_string()]
    with psycopg.connect(database_url, options="") as connection, connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION READ WRITE")
        connection.execute("CREATE SCHEMA theirs")
        connection.execute(create.replace('"wvs"."events"', "theirs.events").encode())
        theirs, ours = columns(connection, "theirs"), columns(connection, "wvs")
    assert theirs.items() <= ours.items()


def columns(connection: psycopg.Connection, schema: str) -> dict[str, str]:
    query = "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
    return dict(connection.execute(query, [schema, "events"]).fetchall())
