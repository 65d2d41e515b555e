"""Postgres is stopped, killed and started while clients write: they repeat refused writes, and nothing is doubled."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Generator
from pathlib import Path

import asyncpg
import httpx
import pytest
from tests.integration.http.actors import Client, client_of, running_api

from wvs.postgres.embedded import EmbeddedPostgres

WRITERS = 8
READERS = 2


class Load:
    """Clients that write until the test stops them. Each one repeats a request with its key until it is answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.over = False
        self.accepted: dict[str, bytes] = {}
        self.refusals: list[httpx.Response] = []

    async def write(self, writer: int) -> None:
        number = 0
        while not self.over:
            name = f"w{writer}-{number}"
            while True:
                response = await self._client.write("POST", "/v1/workspaces", {"name": name}, key=name)
                if response.status_code == 202:
                    break
                self.refusals.append(response)
                await asyncio.sleep(0.05)
            self.accepted[name] = response.content
            number += 1

    async def read(self) -> None:
        while not self.over:
            response = await self._client.get("/v1/workspaces")
            if response.status_code != 200:
                self.refusals.append(response)
            await asyncio.sleep(0.02)

    async def until(self, *, accepted: int = 0, refused: int = 0) -> None:
        """Returns after so many more accepted and refused requests."""
        accepted, refused = len(self.accepted) + accepted, len(self.refusals) + refused
        while len(self.accepted) < accepted or len(self.refusals) < refused:
            await asyncio.sleep(0.02)


@pytest.mark.timeout(240)
async def test_no_write_is_lost_or_doubled_while_postgres_stops_crashes_and_restarts(server: EmbeddedPostgres) -> None:
    async with running_api(server.url()) as api, client_of(api) as client:
        load = Load(client)
        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(load.write(writer))
            for _ in range(READERS):
                group.create_task(load.read())

            await load.until(accepted=50)
            await asyncio.to_thread(server.stop)
            await load.until(refused=WRITERS)
            assert (await client.get("/readyz")).status_code == 503
            await asyncio.to_thread(server.start)
            await load.until(accepted=50)
            assert (await client.get("/readyz")).status_code == 200

            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await load.until(refused=WRITERS)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            await load.until(accepted=50)
            load.over = True

        for refusal in load.refusals:
            assert (refusal.status_code, refusal.json()["code"]) == (503, "UNAVAILABLE")
            assert refusal.headers["content-type"] == "application/problem+json"
            assert int(refusal.headers["retry-after"]) >= 1
        for name, answer in load.accepted.items():
            again = await client.write("POST", "/v1/workspaces", {"name": name}, key=name)
            assert (again.headers["idempotent-replayed"], again.content) == ("true", answer)
    await check_every_name_once(server.url(), set(load.accepted))


async def test_a_hanging_postgres_is_unavailable_in_bounded_time(server: EmbeddedPostgres) -> None:
    async with running_api(server.url(), pool_size=2) as api, client_of(api) as client:
        await client.ok("POST", "/v1/workspaces", {"name": "warm"})
        with stalled(server):
            reads = [client.get("/v1/workspaces") for _ in range(6)]
            write = client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")
            async with asyncio.timeout(30):
                answers = await asyncio.gather(write, *reads, client.get("/readyz"))
            assert {(a.status_code, a.json()["code"]) for a in answers} == {(503, "UNAVAILABLE")}
            assert (await client.get("/livez")).status_code == 200
        assert (await client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")).status_code == 202
        assert len((await client.read("/v1/workspaces", name="one"))["items"]) == 1


@contextlib.contextmanager
def stalled(server: EmbeddedPostgres) -> Generator[None]:
    """Stops every process of the server with SIGSTOP while the block lasts."""
    assert server.pid is not None
    pids = [server.pid, *children(server.pid)]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def children(parent: int) -> list[int]:
    """The processes that `parent` started, see proc_pid_stat(5)."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return found


async def check_every_name_once(url: str, names: set[str]) -> None:
    connection = await asyncpg.connect(url)
    try:
        made = [row["name"] for row in await connection.fetch("SELECT name FROM wvs.workspaces")]
        assert sorted(made) == sorted(names)
        queued = await connection.fetchval("SELECT count(*) FROM wvs.queue")
        tasks = await connection.fetchval("SELECT count(*) FROM wvs.tasks WHERE state = 'queued'")
        events = await connection.fetchval("SELECT count(*) FROM wvs.events")
        lanes = await connection.fetchval("SELECT count(*) FROM wvs.lanes WHERE ready_at IS NOT NULL")
        assert queued == tasks == events == lanes == len(names)
    finally:
        await connection.close()
