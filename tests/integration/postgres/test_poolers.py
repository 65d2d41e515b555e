"""A pooler that keeps no session is refused in each of its modes and orders; one that keeps sessions serves."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from tests.integration.http.api_process import ApiProcess
from tests.integration.postgres.conftest import TcpServer
from tests.integration.postgres.pgbouncer import pgbouncer
from uuid_utils.compat import uuid7

from wvs.engines.volume.opening import init_volume
from wvs.postgres.access import POOLED_PROBES, check_access
from wvs.postgres.errors import MigrationFailed, UnfitDatabase
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import connect

WITHOUT_SESSIONS = {
    "transaction mode that gives the last used server": {"pool_mode": "transaction"},
    "transaction mode in turns": {"pool_mode": "transaction", "server_round_robin": "1"},
    "transaction mode with one server": {"pool_mode": "transaction", "default_pool_size": "1"},
    "statement mode": {"pool_mode": "statement"},
}


@contextlib.asynccontextmanager
async def busy(url: str, clients: int) -> AsyncIterator[None]:
    """Clients that use the same pool all the time, with short and long transactions."""

    async def work(number: int) -> None:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            while True:
                async with connection.transaction():
                    await connection.execute(f"select pg_sleep({number % 3} * 0.003)")
        finally:
            connection.terminate()

    tasks = [asyncio.create_task(work(number)) for number in range(clients)]
    await asyncio.sleep(0.3)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("settings", WITHOUT_SESSIONS.values(), ids=WITHOUT_SESSIONS.keys())
async def test_a_pooler_without_sessions_is_refused(tcp_server: TcpServer, tmp_path: Path, settings: dict[str, str]):
    with pgbouncer(tcp_server.server, tmp_path / "pool", 0, **settings) as url, pytest.raises(UnfitDatabase) as caught:
        await check_access(url, for_writes=False)
    assert caught.value.code == "DATABASE_POOLER"
    assert "pool_mode=session" in caught.value.hint


@pytest.mark.parametrize("order", ["0", "1"])
async def test_a_transaction_pooler_is_refused_while_others_use_it(tcp_server: TcpServer, tmp_path: Path, order: str):
    with pgbouncer(tcp_server.server, tmp_path / "pool", pool_mode="transaction", server_round_robin=order) as url:
        async with busy(url, clients=8):
            for _ in range(10):
                with pytest.raises(UnfitDatabase):
                    await check_access(url, for_writes=False)


async def test_two_pooler_processes_on_one_port_are_refused(tcp_server: TcpServer, tmp_path: Path):
    shared = {"pool_mode": "transaction", "so_reuseport": "1"}
    with pgbouncer(tcp_server.server, tmp_path / "one", 0, **shared) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        with pgbouncer(tcp_server.server, tmp_path / "two", port, **shared):
            for _ in range(5):
                with pytest.raises(UnfitDatabase):
                    await check_access(url, for_writes=False)


async def test_a_direct_connection_and_a_pooler_with_sessions_are_accepted(tcp_server: TcpServer, tmp_path: Path):
    await check_access(tcp_server.url(), for_writes=True)
    with pgbouncer(tcp_server.server, tmp_path / "pool", pool_mode="session") as url:
        async with busy(url, clients=4):
            for _ in range(5):
                await check_access(url, for_writes=True)


async def test_our_limits_hold_behind_a_pooler_that_ignores_no_startup_parameter(tcp_server: TcpServer, tmp_path: Path):
    with pgbouncer(tcp_server.server, tmp_path / "pool", pool_mode="session") as url:
        connection = await connect(url, application_name="wvs test")
        try:
            assert await connection.fetchval("show idle_in_transaction_session_timeout") == "10s"
            assert await connection.fetchval("show application_name") == "wvs test"
        finally:
            await connection.close()


async def test_a_pool_of_sessions_that_is_used_up_is_an_error_and_no_verdict(tcp_server: TcpServer, tmp_path: Path):
    size = str(POOLED_PROBES - 1)
    used_up = {"pool_mode": "session", "default_pool_size": size}
    with pgbouncer(tcp_server.server, tmp_path / "pool", 0, **used_up) as url, pytest.raises(TimeoutError):
        await check_access(url, for_writes=False)


def test_each_program_refuses_a_transaction_pooler_and_says_what_to_set(tcp_server: TcpServer, tmp_path: Path):
    init_volume(str(tmp_path / "volume"), uuid7(), "copy")
    with pgbouncer(tcp_server.server, tmp_path / "pool", pool_mode="transaction") as url:
        environment = {"WVS_DATABASE_URL": url, "WVS_VOLUME": str(tmp_path / "volume"), "WVS_PORT": "0"}
        for command in ("api", "executor", "migrate"):
            ended = subprocess.run(
                [sys.executable, "-m", "wvs.cli.wvs", command],
                env={**environment, "WVS_EXECUTOR_METRICS_PORT": "0"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 2, ended.stderr
            assert "DATABASE_POOLER" in ended.stderr
            assert "Set WVS_DATABASE_URL of executors" in ended.stderr
    tcp_server.execute("do $$ begin assert not exists (select from pg_locks where locktype = 'advisory'); end $$")


async def test_a_migration_through_a_pooler_with_sessions_says_that_it_needs_a_direct_url(
    tcp_server: TcpServer, tmp_path: Path
):
    (tmp_path / "1_one.sql").write_text("-- migrate:up\nselect 1;\n-- migrate:down\n")
    tcp_server.execute("create database fresh template template0 encoding 'UTF8'")
    said = "set WVS_DATABASE_URL of wvs migrate to PostgreSQL itself"
    with pgbouncer(tcp_server.server, tmp_path / "pool", pool_mode="session") as url:
        fresh = url.removesuffix("wvs") + "fresh"
        with pytest.raises(MigrationFailed, match=said):
            await migrate(fresh, directory=tmp_path)


def test_the_api_serves_through_a_pooler_with_sessions(tcp_server: TcpServer, tmp_path: Path):
    with pgbouncer(tcp_server.server, tmp_path / "pool", pool_mode="session") as url:
        api = ApiProcess(url, tmp_path / "api.log")
        try:
            api.start()
            assert api.stop() == 0
        finally:
            api.close()
