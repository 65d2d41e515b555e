"""The real service of this checkout: PostgreSQL, the API and executors as processes, driven through HTTP."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from wvs.postgres.embedded import EmbeddedPostgres

ACTOR: Final = "cli:release"
TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WAIT_S: Final = 60.0
_LINKS_PENDING: Final = "SELECT count(*) FROM wvs.lanes WHERE link_pending IS NOT NULL"

# Events name the executor's host: a fixture must not name the machine that made it.
_EXECUTOR: Final = """
import socket, sys
socket.gethostname = lambda: "release-host"
from wvs.cli.wvs.app import run
sys.exit(run(["executor"]))
"""


class Service:
    """One database and one volume with their programs; writes are sent with keys of their own."""

    def __init__(self, server: EmbeddedPostgres, volume: Path, directory: Path) -> None:
        self.server = server
        self.volume = volume
        self.url = ""
        self.keys = 0
        self._log = directory / "programs.log"
        self._client = httpx.Client()

    @property
    def database_url(self) -> str:
        return self.server.url()

    def wvs(self, *arguments: str) -> str:
        """Runs `wvs`, which has to succeed; returns its output."""
        command = [sys.executable, "-m", "wvs.cli.wvs", *arguments]
        ended = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError(
                f"wvs {' '.join(arguments)} exited with {ended.returncode}: {ended.stdout}{ended.stderr}"
            )
        return ended.stdout

    def wvsctl(self, *arguments: str) -> None:
        """Runs `wvsctl`, which has to succeed."""
        command = [sys.executable, "-m", "wvs.cli.wvsctl", "--url", self.url, *arguments]
        subprocess.run(command, env=self._environment(), check=True)

    @contextlib.contextmanager
    def api(self) -> Generator[None]:
        """Runs the API for the block."""
        command = [sys.executable, "-m", "wvs.cli.wvs", "api", "--port", "0"]
        with self._program(command, {}) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("ready "):
                raise RuntimeError(f"the API did not start: {self._log.read_text()}")
            self.url = line.split()[1]
            self._client = httpx.Client(base_url=self.url, timeout=WAIT_S)
            yield
            self._client.close()

    @contextlib.contextmanager
    def executor(self, failpoints: str = "") -> Generator[subprocess.Popen[str]]:
        """Runs an executor for the block, with these failpoints armed, and drains it."""
        with self._program([sys.executable, "-c", _EXECUTOR], {"WVS_FAILPOINTS": failpoints}) as process:
            yield process

    def get(self, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> Any:
        """The answer to a read, which has to succeed."""
        return self._client.get(path, params=parameters or None, headers=headers).raise_for_status().json()

    def send(
        self, method: str, path: str, body: Any = None, key: str | None = None, more: dict[str, str] | None = None
    ) -> Any:
        """The answer to a write, which has to succeed."""
        self.keys += 1
        headers = {
            "idempotency-key": key or f"release-{self.keys}",
            "content-type": "application/json",
            "x-actor": ACTOR,
            "x-request-id": f"release-request-{self.keys}",
            "traceparent": TRACEPARENT,
            **(more or {}),
        }
        answer = self._client.request(method, path, json=body, headers=headers)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def finish(self, accepted: dict[str, Any], state: str = "succeeded") -> dict[str, Any]:
        """Waits until the task of an answer is in `state` and all links have followed; returns the answer."""
        task = accepted.get("task", accepted)["id"]
        deadline = time.monotonic() + WAIT_S
        while (now := self.get(f"/v1/tasks/{task}"))["state"] != state or self._links_pending():
            if time.monotonic() > deadline:
                raise RuntimeError(f"task {task} is {now['state']} and not {state}, or a link is missing: {now}")
            time.sleep(0.02)
        return accepted

    def run(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A write and the successful end of its task."""
        return self.finish(self.send(method, path, body))

    def _links_pending(self) -> bool:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(_LINKS_PENDING).fetchone() != (0,)

    @contextlib.contextmanager
    def _program(self, command: list[str], more: dict[str, str]) -> Generator[subprocess.Popen[str]]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, env={**self._environment(), **more}, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WVS_")}
        return {
            **inherited,
            "WVS_DATABASE_URL": self.database_url,
            "WVS_VOLUME": str(self.volume),
            "WVS_EXECUTOR_METRICS_PORT": "0",
            "WVS_LEASE_S": "2",
            "WVS_LEASE_RENEW_S": "0.5",
            "WVS_POLL_S": "0.2",
            "WVS_FREEZE_BUDGET_S": "4",
        }


@contextlib.contextmanager
def running_service(directory: Path) -> Generator[Service]:
    """The service in `directory`, migrated, with an empty volume of the copy engine and a running API."""
    with EmbeddedPostgres(directory / "database", durable=False) as server:
        service = Service(server, directory / "volume", directory)
        service.wvs("migrate")
        service.wvs("volume", "init", str(service.volume), "--engine", "copy")
        with service.api():
            yield service
