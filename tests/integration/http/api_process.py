"""`wvs api` as a separate process on a fixed port, so that a test can restart it in place."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ApiProcess:
    """Successive processes with the same settings."""

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
        """Starts a process; returns when it accepts connections."""
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
        """Sends the signal; returns the exit code."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        self.process.stdout.close()
        self.process = None
        return code

    def close(self) -> None:
        """Kills the process if it still runs."""
        if self.process is not None:
            self.stop(signal.SIGKILL)

    def metric(self, name: str) -> float:
        """The value of a metric; `name` includes the labels. 0 if the metric does not exist."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def resident_bytes(self) -> int:
        """The resident memory of the process."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024
