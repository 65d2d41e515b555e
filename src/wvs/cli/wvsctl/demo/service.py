"""The demo's private service: `wvs up` with an embedded PostgreSQL, in a temporary directory."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from wvs.cli.wvsctl.demo.narrator import CheckFailed

READY: Final = "ready "
_STOP_TIMEOUT_S: Final = 30.0
_TAIL_LINES: Final = 15


class DemoService:
    """The process tree of one `wvs up`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    @property
    def pid(self) -> int:
        return self._process.pid

    def executor(self) -> int | None:
        """The process id of its executor, or None if no executor runs at the moment."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                if b"executor" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        return None

    def children(self) -> list[int]:
        """Its child processes: API, executor, and the PostgreSQL server."""
        return _children(self._process.pid)

    def stop(self) -> int:
        """Drains and stops the service; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@contextlib.contextmanager
def running(directory: Path) -> Generator[DemoService]:
    """Runs `wvs up` in `directory` for the block; raises `CheckFailed` with the log if it does not start."""
    log = directory / "wvs.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvs", "up", "--data-dir", str(directory / "data"), "--engine", "copy"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C must reach only the demo, which then stops the service
        )
    service = DemoService(process, "")
    try:
        if process.stdout is None or not (line := process.stdout.readline()).startswith(READY):
            raise CheckFailed(f"wvs up did not start:\n{tail(log)}")
        service.url = line.removeprefix(READY).strip()
        yield service
    finally:
        if process.poll() is None:
            service.stop()
        if process.stdout is not None:
            process.stdout.close()


def tail(log: Path) -> str:
    """The last lines of the service's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


def has_ended(pid: int, within_s: float = 5.0) -> bool:
    """Whether the process has ended or ends within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def environment() -> dict[str, str]:
    """This process's environment with the demo's settings in place of the user's.

    One clone worker makes a clone slow enough to kill it half-way. The freeze budget is short because one step waits
    until it is exhausted.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WVS_")}
    return {
        **inherited,
        "WVS_PORT": "0",
        "WVS_EXECUTOR_METRICS_PORT": "0",
        "WVS_CLONE_WORKERS": "1",
        "WVS_FREEZE_BUDGET_S": "4",
    }


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may contain anything; the parent's id is the second field after it (proc(5)).
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == pid:
                children.append(int(status.parent.name))
    return children
