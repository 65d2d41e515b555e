"""The whole API on a real Postgres, called in this process. The tests play the executor, with real claims."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.eventlog.commanding import write_path
from tests.integration.http.actors import Client, Executor, client_of, running_api
from tests.integration.http.api_process import ApiProcess
from tests.integration.http.server_process import ServerProcess, StartServer
from tests.integration.http.stream_writing import StartApi

from wvs.application.write_path import WritePath
from wvs.eventlog.codec import EventMapper
from wvs.http.app import Api
from wvs.http.wiring import hints_through
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import Pool, connect
from wvs.signals.hints import Hinter
from wvs.telemetry.metrics import Metrics


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with running_api(database_url) as running:
        yield running


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    async with client_of(api) as opened:
        yield opened


@pytest.fixture
async def executor(pool: Pool, database_url: str) -> AsyncIterator[Executor]:
    hinter = Hinter(database_url, lambda: None)
    path = WritePath(pool, EventMapper(), Metrics(), on_commit=hints_through(hinter))
    connection = await connect(database_url, application_name="test executor")
    async with hinter.running():
        yield Executor(path, connection)
    await connection.close()


@pytest.fixture
async def active(client: Client, executor: Executor) -> dict[str, Any]:
    """An active workspace called `one`."""
    await client.ok("POST", "/v1/workspaces", {"name": "one"})
    await executor.run()
    return await client.read("/v1/workspaces/one")


@pytest.fixture
async def ready(client: Client, executor: Executor, active: dict[str, Any]) -> dict[str, Any]:
    """A ready snapshot of `one`."""
    made = await client.ok("POST", "/v1/workspaces/one/snapshots", {"message": "first", "labels": {"a": "1"}})
    await executor.run()
    return await client.read(f"/v1/workspaces/one/snapshots/{made['snapshot']['id']}")


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedPostgres]:
    """A server of PostgreSQL for one test, so that the test may stop it."""
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    with tempfile.TemporaryDirectory(prefix="wvs-stop-") as directory:
        home = Path(directory)
        os.chmod(directory, 0o755)
        server = EmbeddedPostgres(home / "d", durable=False, binaries=Path(binaries) if binaries else None)
        await asyncio.to_thread(server.start)
        try:
            await migrate(server.url())
            yield server
        finally:
            await asyncio.to_thread(server.stop)


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    started: list[ServerProcess] = []

    def start_one(limits: dict[str, Any] | None = None, grace_s: int = 10) -> ServerProcess:
        served = ServerProcess(tmp_path_factory.mktemp("served") / "stderr", limits or {}, grace_s)
        started.append(served)
        return served

    yield start_one
    for served in started:
        served.process.kill()
        served.process.wait()
        assert served.process.stdout is not None
        served.process.stdout.close()


@pytest.fixture
def start_api(database_url: str, tmp_path: Path) -> Iterator[StartApi]:
    """Starts `wvs api` on the test's database."""
    started: list[ApiProcess] = []

    def start_one(**settings: Any) -> ApiProcess:
        wanted = {"event_stream_heartbeat_s": 0.4, **settings}
        api = ApiProcess(database_url, tmp_path / "log", **{name: str(value) for name, value in wanted.items()})
        started.append(api)
        api.start()
        return api

    yield start_one
    for api in started:
        api.close()


@pytest.fixture
async def path(pool: Pool) -> AsyncIterator[WritePath]:
    writing = write_path(pool)
    yield writing
    await writing.close()
