"""PostgreSQL, the API, and an executor that stops at a failpoint: separate processes, to be killed."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
from tests.integration.agent.conftest import Service
from tests.integration.executor.platform import Platform
from tests.integration.executor.processes import ExecutorProcess, Executors

from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import create_pool

BUDGET_S = 2.0
"""The budget of every freeze. An agent without contact to the service resumes 5 s later."""


class Stack:
    """One volume with its programs. A killed program restarts on the same address."""

    def __init__(self, server: EmbeddedPostgres, volume: Path, directory: Path) -> None:
        self.server = server
        self.volume = volume
        self.executors = Executors(server.url(), volume, directory)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._api: subprocess.Popen[bytes] | None = None

    def start_api(self) -> None:
        others = {name: text for name, text in os.environ.items() if not name.startswith("WVS_")}
        settings = {"WVS_DATABASE_URL": self.server.url(), "WVS_VOLUME": str(self.volume), "WVS_PORT": str(self.port)}
        with (self._directory / "api.log").open("ab") as log:
            command = [sys.executable, "-m", "wvs.cli.wvs", "api"]
            self._api = subprocess.Popen(command, env={**others, **settings}, stdout=log, stderr=log)

    async def until_ready(self) -> None:
        async with httpx.AsyncClient() as client, asyncio.timeout(60):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    def start_executor(self, failpoints: str = "") -> ExecutorProcess:
        return self.executors.start(failpoints=failpoints, freeze_budget_s=str(BUDGET_S))

    def kill_api(self) -> None:
        if self._api is not None:
            self._api.kill()
            self._api.wait()

    def kill_server(self) -> None:
        """Kills every process of PostgreSQL at once, as a power cut would. The postmaster cannot clean up."""
        postmaster = int((self.server.pgdata / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.executors.close()
        self.kill_api()


@contextlib.asynccontextmanager
async def served(stack: Stack) -> AsyncGenerator[Service]:
    """An active workspace behind the stack's API; no executor runs."""
    await migrate(stack.server.url())
    stack.start_api()
    pool = await create_pool(stack.server.url(), application_name="wvs test", size=4)
    try:
        async with Platform(pool, stack.server.url(), stack.volume).hinting() as platform:
            await stack.until_ready()
            async with platform.running():
                workspace_id = await platform.create()
            async with httpx.AsyncClient(
                base_url=stack.url, timeout=70, limits=httpx.Limits(keepalive_expiry=1)
            ) as client:
                service = Service(platform, client, workspace_id)
                yield service
                await service.close()
    finally:
        await pool.close()


def counts(service: Service) -> dict[Path, bytes]:
    """The counter of the program writing.py in each tree."""
    found: dict[Path, bytes] = {}
    home = service.platform.home(service.workspace_id)
    for file in (*home.glob("live/root/first"), *home.glob("*/*/root/first")):
        with contextlib.suppress(FileNotFoundError):
            found[file] = file.read_bytes()
    return found


async def counted_on(service: Service, since: float, seconds: float = 60) -> float:
    """Seconds from `since` (time.monotonic) until the program counts on, in any tree."""
    ends = time.monotonic() + seconds
    before = counts(service)
    while True:
        now = counts(service)
        if any(
            len(number) == len(before.get(file, b"")) == 8 and number != before[file] for file, number in now.items()
        ):
            return time.monotonic() - since
        before = now
        assert time.monotonic() < ends, f"the agent did not run within {seconds} s"
        await asyncio.sleep(0.01)


async def is_paused(service: Service) -> bool:
    """Whether the program counts in no tree for 0.1 s."""
    before = counts(service)
    await asyncio.sleep(0.1)
    return bool(before) and before == counts(service)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
