"""Hints: few for many commits, never needed, and back by themselves after their connection was lost."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from wvs.postgres.pool import Pool, connect
from wvs.signals.hints import EVENTS, TASKS, Hinter, Listener


@contextlib.asynccontextmanager
async def listening(url: str, heard: list[str]) -> AsyncGenerator[None]:
    connection = await connect(url, application_name="test listener")
    await connection.add_listener(TASKS, lambda *_: heard.append(TASKS))
    await connection.add_listener(EVENTS, lambda *_: heard.append(EVENTS))
    try:
        yield
    finally:
        connection.terminate()


async def heard_within(heard: list[str], count: int, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while len(heard) < count:
            await asyncio.sleep(0.01)


async def end_backends(pool: Pool, name: str) -> int:
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = $1"
    )
    ended: int = await pool.fetchval(query, name)
    return ended


def nobody() -> None:
    """Is told that hints were lost."""


async def test_a_burst_of_commits_is_few_hints(database_url: str) -> None:
    heard: list[str] = []
    async with listening(database_url, heard), Hinter(database_url, nobody, coalesce_s=0.05).running() as hinter:
        for _ in range(200):
            hinter.touch(TASKS)
            await asyncio.sleep(0)
        await heard_within(heard, 1)
        await asyncio.sleep(0.3)
    assert 1 <= len(heard) <= 6


async def test_each_channel_that_was_touched_is_hinted(database_url: str) -> None:
    heard: list[str] = []
    async with listening(database_url, heard), Hinter(database_url, nobody).running() as hinter:
        hinter.touch(TASKS, EVENTS)
        await heard_within(heard, 2)
    assert sorted(heard) == sorted([TASKS, EVENTS])


async def test_a_hinter_whose_connection_was_lost_hints_again(pool: Pool, database_url: str) -> None:
    heard: list[str] = []
    async with listening(database_url, heard), Hinter(database_url, nobody).running() as hinter:
        for number in range(6):  # at any moment of the connection: idle, told to end, ended
            before = len(heard)
            async with asyncio.timeout(60):
                while len(heard) == before:
                    hinter.touch(TASKS)  # some are lost with the connection
                    await asyncio.sleep(0.1)
            await end_backends(pool, "wvs-hints")
            await asyncio.sleep(number % 3 * 0.005)


async def test_a_hint_is_sent_though_nobody_can_be_reached(database_url: str) -> None:
    """Touching neither waits nor fails; that hints are lost is told."""
    lost = asyncio.Event()
    nowhere = Hinter("postgresql://nobody@127.0.0.1:1/nowhere", lost.set)
    async with nowhere.running(), asyncio.timeout(60):
        nowhere.touch(TASKS)
        await lost.wait()


async def test_a_listener_whose_connection_was_lost_calls_once_more_and_hears_again(
    pool: Pool, database_url: str
) -> None:
    called: list[str] = []
    lost: list[str] = []
    listener = Listener(database_url, {TASKS: lambda: called.append(TASKS)}, lambda: lost.append(TASKS))
    async with listener.running(), Hinter(database_url, nobody).running() as hinter:
        await heard_within(called, 1)
        hinter.touch(TASKS)
        await heard_within(called, 2)
        assert await end_backends(pool, "wvs-listener") == 1
        await heard_within(called, 3)  # something may have been missed meanwhile
        assert lost == [TASKS]
        hinter.touch(TASKS)
        await heard_within(called, 4)
