"""Hints: few for many commits, and sent again after their connection was lost."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from wvs.postgres.pool import Pool, connect
from wvs.signals.hints import EVENTS, TASKS, Hinter, Listener


@contextlib.asynccontextmanager
async def listening(url: str, received: list[str]) -> AsyncGenerator[None]:
    connection = await connect(url, application_name="test listener")
    await connection.add_listener(TASKS, lambda *_: received.append(TASKS))
    await connection.add_listener(EVENTS, lambda *_: received.append(EVENTS))
    try:
        yield
    finally:
        connection.terminate()


async def received_within(received: list[str], count: int, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while len(received) < count:
            await asyncio.sleep(0.01)


async def end_backends(pool: Pool, name: str) -> int:
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = $1"
    )
    ended: int = await pool.fetchval(query, name)
    return ended


def ignore_loss() -> None:
    """The callback for lost hints."""


async def test_a_burst_of_commits_sends_few_hints(database_url: str) -> None:
    received: list[str] = []
    async with (
        listening(database_url, received),
        Hinter(database_url, ignore_loss, coalesce_s=0.05).running() as hinter,
    ):
        for _ in range(200):
            hinter.touch(TASKS)
            await asyncio.sleep(0)
        await received_within(received, 1)
        await asyncio.sleep(0.3)
    assert 1 <= len(received) <= 6


async def test_each_touched_channel_gets_a_hint(database_url: str) -> None:
    received: list[str] = []
    async with listening(database_url, received), Hinter(database_url, ignore_loss).running() as hinter:
        hinter.touch(TASKS, EVENTS)
        await received_within(received, 2)
    assert sorted(received) == sorted([TASKS, EVENTS])


async def test_a_hinter_reconnects_after_its_connection_was_lost(pool: Pool, database_url: str) -> None:
    received: list[str] = []
    async with listening(database_url, received), Hinter(database_url, ignore_loss).running() as hinter:
        for number in range(6):  # in every state of the connection: idle, ending, ended
            before = len(received)
            async with asyncio.timeout(60):
                while len(received) == before:
                    hinter.touch(TASKS)  # some are lost with the connection
                    await asyncio.sleep(0.1)
            await end_backends(pool, "wvs-hints")
            await asyncio.sleep(number % 3 * 0.005)


async def test_touch_neither_waits_nor_fails_without_a_server(database_url: str) -> None:
    """The callback reports the lost hints."""
    lost = asyncio.Event()
    nowhere = Hinter("postgresql://ignore_loss@127.0.0.1:1/nowhere", lost.set)
    async with nowhere.running(), asyncio.timeout(60):
        nowhere.touch(TASKS)
        await lost.wait()


async def test_a_listener_reconnects_and_calls_once_after_its_connection_was_lost(
    pool: Pool, database_url: str
) -> None:
    called: list[str] = []
    lost: list[str] = []
    listener = Listener(database_url, {TASKS: lambda: called.append(TASKS)}, lambda: lost.append(TASKS))
    async with listener.running(), Hinter(database_url, ignore_loss).running() as hinter:
        await received_within(called, 1)
        hinter.touch(TASKS)
        await received_within(called, 2)
        assert await end_backends(pool, "wvs-listener") == 1
        await received_within(called, 3)  # a hint may have been lost meanwhile
        assert lost == [TASKS]
        hinter.touch(TASKS)
        await received_within(called, 4)
