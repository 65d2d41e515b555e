"""The platform under test: one database, one volume, an API process and executor processes that come and go."""

import signal
import socket
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

from tests.property.platform.client import Client
from tests.property.platform.disk_audit import DiskAudit
from tests.property.platform.log_audit import LogAudit
from tests.property.platform.processes import Process, Processes
from wvs.engines.volume.opening import init_volume

WAIT_S: Final = 90.0
"""Everything that the test waits for takes a few seconds at most; a busy machine gets more."""

MOST_STOPPED: Final = 1
"""How many executors may be stopped at once; the harness continues the oldest ones beyond that."""


class Harness:
    """The platform of one test. All examples share it; each has workspaces of its own."""

    def __init__(self, url: str, directory: Path) -> None:
        self.directory = directory
        self.volume = directory / "volume"
        init_volume(str(self.volume), uuid4(), "copy")
        journal = directory / "clones"
        self._port = _free_port()
        environment = {
            "WVS_DATABASE_URL": url,
            "WVS_VOLUME": str(self.volume),
            "WVS_PORT": str(self._port),
            "WVS_CLONE_JOURNAL": str(journal),
            "WVS_EXECUTOR_METRICS_PORT": "0",
            "WVS_EXECUTOR_SLOTS": "2",
            "WVS_CLONE_WORKERS": "1",
            "WVS_POOL_SIZE": "4",
            "WVS_LEASE_S": "1.5",
            "WVS_LEASE_RENEW_S": "0.5",
            "WVS_POLL_S": "0.3",
            "WVS_DRAIN_GRACE_S": "3",
            "WVS_LOG_FORMAT": "json",
        }
        self.processes = Processes(environment, directory)
        self.client = Client(f"http://127.0.0.1:{self._port}")
        self.log = LogAudit(url)
        self.disk = DiskAudit(self.volume, journal, self.processes)
        self.wanted = 2
        self.steps = 0
        self.pasts = 0
        self.armed = False
        self.api = self._start_api()
        self.tend()

    def close(self) -> None:
        self.client.close()
        self.log.close()
        self.processes.close()

    def tend(self) -> None:
        """Starts executors until `wanted` ones work, and continues stopped ones beyond MOST_STOPPED."""
        stopped = self.processes.find_stopped()
        for process in stopped[: max(0, len(stopped) - MOST_STOPPED)]:
            process.signal(signal.SIGCONT)
        working = [p for p in self.processes.executors() if p not in stopped]
        for _ in range(self.wanted - len(working)):
            self.processes.start("executor")

    def arm(self, executor: Process, specification: str) -> None:
        """Arms a failpoint in an executor that can accept it."""
        if executor.arm(specification):
            self.armed = True

    def calm(self) -> bool:
        """Whether no fault is pending: no failpoint is armed, no process is stopped, and no executor is missing."""
        executors = self.processes.executors()
        return not self.armed and not self.processes.find_stopped() and len(executors) >= self.wanted

    def working(self, pick: int) -> Process:
        """One of the live executors."""
        self.tend()
        executors = self.processes.executors()
        return executors[pick % len(executors)]

    def stop_one(self, pick: int) -> None:
        """Asks an executor to drain, without waiting for it."""
        self.wanted = max(1, self.wanted - 1)
        self.working(pick).signal(signal.SIGTERM)

    def continue_all(self) -> None:
        """Continues every stopped executor, however late it is."""
        for process in self.processes.find_stopped():
            process.signal(signal.SIGCONT)

    def end_faults(self) -> None:
        """Disarms all failpoints and continues all stopped executors."""
        self.continue_all()
        deadline = time.monotonic() + WAIT_S
        for process in self.processes.executors():
            while not process.arm("") and process.alive:
                assert time.monotonic() < deadline, f"executor {process.number} does not answer"
                process.signal(signal.SIGCONT)
                time.sleep(0.02)
        self.armed = False

    def sweep(self, failpoints: str = "") -> None:
        """Runs `wvs volume check --repair` on the whole volume; a failpoint may end it early."""
        sweep = self.processes.start("sweep", WVS_FAILPOINTS=failpoints)
        deadline = time.monotonic() + WAIT_S
        while not sweep.ended.wait(0.05):
            if sweep.is_stopped:
                sweep.signal(signal.SIGCONT)
            assert time.monotonic() < deadline, "wvs volume check does not end"
        assert failpoints or sweep.code in (0, 1), f"wvs volume check ended with {sweep.code}: see {self.directory}"

    def restart_api(self, *, kill: bool) -> None:
        """Ends the API and starts another one at the same address."""
        self.api.signal(signal.SIGKILL if kill else signal.SIGTERM)
        if not self.api.ended.wait(WAIT_S):
            raise TimeoutError("the API did not drain")
        assert kill or self.api.code == 0, f"the API drained with exit code {self.api.code}"
        self.api = self._start_api()

    def _start_api(self) -> Process:
        api = self.processes.start("api")
        deadline = time.monotonic() + WAIT_S
        while not self.client.ready():
            if not api.alive or time.monotonic() > deadline:
                raise TimeoutError(f"the API did not start: see {self.directory}")
            time.sleep(0.02)
        return api


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
