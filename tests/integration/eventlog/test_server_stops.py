"""PostgreSQL stops under load, in three ways. Callers repeat requests with their keys; each has effect exactly once."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from tests.integration.eventlog.commanding import activated, key_of, snapshot, write_path
from tests.postgres_state import describe_server

from wvs.application.write_path import OutcomeUnknownError, WritePath
from wvs.eventlog.recorder import CommandWrite, CommitResult
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import Pool, close, connect, create_pool

WRITERS = 8
COMMANDS = 40
"""Per writer; two writers on each workspace stay below the limit of its queue."""

SOME_COMMITS_TAKE_TIME = """
CREATE FUNCTION hold_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.03 * random());
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER commit_late AFTER INSERT ON wvs.events DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION hold_open();
"""

Outage = Callable[[EmbeddedPostgres, Pool], Awaitable[str]]
"""Stops the server, and returns a remark for the output of the test."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A server for this test alone."""
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    tmp_path.chmod(0o755)
    with EmbeddedPostgres(tmp_path, durable=False, binaries=Path(binaries) if binaries else None) as server:
        yield server


async def stopped_and_started(server: EmbeddedPostgres, pool: Pool) -> str:
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.start)
    return ""


async def backend_killed(server: EmbeddedPostgres, pool: Pool) -> str:
    """The server ends every session and recovers from its log.

    Once in many hundred runs it was gone for good after that. If so, it is started again, and its state is printed.
    """
    os.kill(await pool.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await until_it_answers(server)
        return ""
    state = describe_server(server)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    return f"the server did not come back by itself after a backend was killed: {state}"


async def until_it_answers(server: EmbeddedPostgres) -> None:
    while True:
        try:
            connection = await connect(server.url(), application_name="outage")
        except CONNECTION_LOST:
            await asyncio.sleep(0.1)
        else:
            await close(connection)
            return


async def server_killed(server: EmbeddedPostgres, pool: Pool) -> str:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    return ""


@pytest.mark.parametrize("outage", [stopped_and_started, backend_killed, server_killed])
async def test_a_command_that_is_repeated_with_its_key_through_an_outage_happens_once(
    server: EmbeddedPostgres,
    outage: Outage,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    await migrate(server.url())
    pool = await create_pool(server.url(), application_name="outage", size=WRITERS)
    path = write_path(pool, settle_s=20)
    unsettled: list[CommandWrite] = []

    async def settle(write: CommandWrite) -> CommitResult | None:
        unsettled.append(write)
        return await WritePath.settle(path, write)

    monkeypatch.setattr(path, "settle", settle)
    workspaces = [await activated(path, f"ws-{n}") for n in range(WRITERS // 2)]
    await pool.execute(SOME_COMMITS_TAKE_TIME)

    begun = asyncio.Event()
    writers = [asyncio.create_task(write(path, workspaces[n // 2], f"writer {n}", begun)) for n in range(WRITERS)]
    await begun.wait()
    if told := await outage(server, pool):
        record_property("summary", told)
    answered = await asyncio.gather(*writers)

    assert unsettled, "the outage interrupted no commit: it proved nothing"
    expected = {key: snapshot_id for answers in answered for key, snapshot_id in answers.items()}
    keys = await pool.fetch("SELECT key, (answer -> 'snapshot' ->> 'id')::uuid AS id FROM wvs.idempotency_keys")
    assert {row["key"]: row["id"] for row in keys} == expected
    snapshots = await pool.fetch("SELECT id FROM wvs.snapshots")
    assert sorted(row["id"] for row in snapshots) == sorted(expected.values())
    assert await pool.fetchval("SELECT count(*) FROM wvs.queue") == len(expected) == WRITERS * COMMANDS
    for workspace_id in workspaces:
        assert await path.load(workspace_id) == await write_path(pool).load(workspace_id)
    pool.terminate()


async def write(path: WritePath, workspace_id: UUID, name: str, begun: asyncio.Event) -> dict[str, UUID]:
    """Requests snapshots one by one, each with a key and until it is answered. Returns the snapshot of each key."""
    answered: dict[str, UUID] = {}
    for n in range(COMMANDS):
        key = f"{name}, {n}"
        while key not in answered:
            try:
                committed = await snapshot(path, workspace_id, key_of(key))
            except (*CONNECTION_LOST, OutcomeUnknownError):
                await asyncio.sleep(0.05)
            else:
                answered[key] = UUID(msgspec.json.decode(committed.answer or b"")["snapshot"]["id"])
        if n == COMMANDS // 4:
            begun.set()
    return answered
