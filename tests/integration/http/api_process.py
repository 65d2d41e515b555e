"""`wvs api` as a process of its own, on a fixed port, so that it can be restarted in place."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ApiProcess:
    """One process after the other with the same settings."""

    def __init__(self, database_url: str, log: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._environment = {
            **os.environ,
            "WVS_DATABASE_URL": database_url,
            "WVS_PORT": str(self.port),
            "WVS_VOLUME": str(log.parent),
            "WVS_LOG_FORMAT": "json",
            **{f"WVS_{name.upper()}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when it serves."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wvs.cli.wvs", "api"],
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(f"ready {self.url}"), line + self.log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Its exit code."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        self.process.stdout.close()
        self.process = None
        return code

    def close(self) -> None:
        """Ends whatever still runs."""
        if self.process is not None:
            self.stop(signal.SIGKILL)

    def metric(self, name: str) -> float:
        """The value of a metric, its labels included in `name`; 0 if it is not there."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def resident_bytes(self) -> int:
        """The memory that the process holds now."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024
