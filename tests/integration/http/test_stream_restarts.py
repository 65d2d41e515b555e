"""Event streams across restarts of the API, of PostgreSQL, and of their connections."""

import asyncio
import os
import signal
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.eventlog.commanding import activated, created, write_path
from tests.integration.eventlog.race_writers import LATE
from tests.integration.eventlog.test_crashes import FAIL, PRELOGGED, SEQUENCE, crash, roll_back
from tests.integration.eventlog.test_race import HOLD_OPEN
from tests.integration.http.api_process import ApiProcess
from tests.integration.http.stream_client import StreamClient, follow
from tests.integration.http.stream_writing import StartApi, log_of, written

from wvs.application.write_path import WritePath
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import Pool, create_pool


@pytest.mark.timeout(300)
async def test_no_event_is_lost_or_doubled_across_restarts_of_the_api_and_lost_connections(
    start_api: StartApi, path: WritePath, pool: Pool
) -> None:
    api = start_api()
    await pool.execute(HOLD_OPEN)  # one writer's commits come late: its positions are lower than what is seen before
    workspaces = [await activated(path, f"w{n}") for n in range(5)]
    got: list[list[str]] = [[] for _ in range(4)]
    following = [asyncio.create_task(follow(api.url, "1:0", mine)) for mine in got]
    over = asyncio.Event()

    async def write(workspace_id: UUID, actor: str) -> None:
        while not over.is_set():
            await written(path, workspace_id, 1, actor)

    writing = [asyncio.create_task(write(workspace_id, "prompt")) for workspace_id in workspaces[1:]]
    writing.append(asyncio.create_task(write(workspaces[0], LATE)))
    for number in (signal.SIGTERM, signal.SIGKILL):
        await longer(got)
        await asyncio.to_thread(api.stop, number)
        await asyncio.to_thread(api.start)
    await longer(got)
    ended = await pool.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'wvs-%'"
    )
    assert ended > 2
    await longer(got)
    over.set()
    await asyncio.gather(*writing)
    log = await log_of(pool)
    async with asyncio.timeout(60):
        while any(len(mine) < len(log) for mine in got):
            await asyncio.sleep(0.05)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    assert got == [log] * 4


async def longer(got: list[list[str]]) -> None:
    """Returns when every client has got more than it has now."""
    before = [len(mine) for mine in got]
    async with asyncio.timeout(60):
        while any(len(mine) < count + 20 for mine, count in zip(got, before, strict=True)):
            await asyncio.sleep(0.02)


@pytest.mark.timeout(240)
async def test_a_stream_survives_a_restart_of_postgres(server: EmbeddedPostgres, tmp_path: Path) -> None:
    api = ApiProcess(server.url(), tmp_path / "log", event_stream_heartbeat_s="0.4")
    pool = await create_pool(server.url(), application_name="test", size=4)
    try:
        api.start()
        path = write_path(pool)
        workspace_id = await activated(path, "one")
        async with StreamClient(api.url, after="1:0") as client:
            got = await client.take(3)
            await asyncio.to_thread(server.stop)
            await client.until_heartbeat()
            await client.until_heartbeat()
            await asyncio.to_thread(server.start)
            await pool.expire_connections()
            await written(path, workspace_id, 10)
            got += await client.take(20)
        assert [event["position"] for event in got] == await log_of(pool)
        assert api.metric('wvs_ignored_failures_total{where="event_feed"}') > 0
        await path.close()
    finally:
        api.close()
        await asyncio.wait_for(pool.close(), 30)


@pytest.mark.timeout(240)
async def test_no_stream_misses_an_event_at_a_position_that_is_assigned_again_after_a_crash(tmp_path: Path) -> None:
    """The API lives on. One stream stays open, one reconnects with the id of its last heartbeat."""
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    home = tmp_path / "d"
    tmp_path.chmod(0o755)
    lazy = {"wal_writer_delay": "10s"}
    with EmbeddedPostgres(home, durable=False, settings=lazy, binaries=Path(binaries) if binaries else None) as server:
        await migrate(server.url())
        api = ApiProcess(server.url(), tmp_path / "log", event_stream_heartbeat_s="0.4")
        pool = await create_pool(server.url(), application_name="test", size=4)
        try:
            api.start()
            path = write_path(pool)
            await pool.execute(FAIL)
            await activated(path, "one")
            for n in range(2):
                log = await log_of(pool)
                await roll_back(path, PRELOGGED + 1)
                async with StreamClient(api.url) as open_stream, StreamClient(api.url) as begun:
                    await open_stream.until_heartbeat()
                    await begun.until_heartbeat()
                    assigned = await pool.fetchval(SEQUENCE)
                    await crash(server)
                    pool.terminate()
                    pool = await create_pool(server.url(), application_name="test", size=4)
                    path = write_path(pool)
                    assert await pool.fetchval(SEQUENCE) < assigned, "the crash took back no position"
                    for m in range(3):
                        await created(path, f"after-crash-{n}-{m}")
                    new = [position for position in await log_of(pool) if position not in log]
                    assert len(new) == 3
                    async with StreamClient(api.url, begun.last_id) as again:
                        assert [event["position"] for event in await again.take(3)] == new
                    assert [event["position"] for event in await open_stream.take(3)] == new
            await path.close()
        finally:
            api.close()
            pool.terminate()
