"""Real executor processes: `wvs executor`, to be killed, stopped and continued.

They are forked from a server that has imported everything once: an executor is there in a moment, and what runs in it
is the program's own code from its command line on.
"""

import asyncio
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x00020000
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["wvs.cli.wvs.executing", "wvs.cli.wvs.app", __name__])


def _execute(environment: dict[str, str], log: Path, mounts: str | None, user: int | None) -> None:
    if mounts is not None:
        _enter(mounts)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    if user is not None:
        # What the program imports late it has to import now: another user may not reach this installation.
        for module in ("encodings.ascii", "encodings.idna", "encodings.latin_1", "wvs.cli.wvs.failures"):
            importlib.import_module(module)
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    # A change of the user clears it (prctl(2)).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    from wvs.cli.wvs.app import run  # noqa: PLC0415

    sys.exit(run(["executor"]))


def _enter(mounts: str) -> None:
    """Joins the mount namespace, where the volume is mounted: the fork server may be outside."""
    descriptor = os.open(mounts, os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), mounts)
    os.close(descriptor)


class ExecutorProcess:
    """One executor. It ends with the test's process, however that ends."""

    def __init__(
        self, environment: dict[str, str], log: Path, mounts: str | None = None, user: int | None = None
    ) -> None:
        self.log = log
        self._process = _context.Process(target=_execute, args=(environment, log, mounts, user), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._process.join()

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def drain(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether the process is stopped (state T of proc(5))."""
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    async def ended(self, seconds: float = 20) -> int:
        """Its exit code; negative for a signal."""
        ends = time.monotonic() + seconds
        while self._process.exitcode is None:
            assert time.monotonic() < ends, f"executor {self.pid} runs on after {seconds} s"
            await asyncio.sleep(0.02)
        return self._process.exitcode

    async def until_stopped(self, seconds: float = 20) -> None:
        ends = time.monotonic() + seconds
        while not self.stopped:
            assert time.monotonic() < ends, f"executor {self.pid} was not stopped within {seconds} s"
            await asyncio.sleep(0.02)

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log."""
        parsed = [msgspec.json.decode(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in parsed if event is None or line["event"] == event]

    async def logged(self, event: str, seconds: float = 20) -> dict[str, Any]:
        """The first line of that event."""
        ends = time.monotonic() + seconds
        while not (found := self.lines(event) if self.log.exists() else []):
            assert time.monotonic() < ends, f"executor {self.pid} did not log {event} within {seconds} s"
            await asyncio.sleep(0.02)
        return found[0]

    def close(self) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.join()


class Executors:
    """Starts executors on one volume, and ends those that still run in `close`.

    `mounted_here`: the volume is on a mount that only this thread's mount namespace has. `user`: the executors run
    with this uid and gid, and with no right of root.
    """

    def __init__(
        self, url: str, volume: Path, directory: Path, *, mounted_here: bool = False, user: int | None = None
    ) -> None:
        here = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/mnt"
        self._mounts = here if mounted_here else None
        self._user = user
        self._environment = {
            "WVS_DATABASE_URL": url,
            "WVS_VOLUME": str(volume),
            "WVS_EXECUTOR_METRICS_PORT": "0",
            "WVS_EXECUTOR_SLOTS": "2",
            "WVS_LEASE_S": "2",
            "WVS_LEASE_RENEW_S": "0.5",
            "WVS_POLL_S": "0.2",
            "WVS_DRAIN_GRACE_S": "2",
            "WVS_POOL_SIZE": "4",
            "WVS_LOG_FORMAT": "json",
            "WVS_FAILPOINTS": "",
            "WVS_CLONE_JOURNAL": str(directory / "journal"),
        }
        if user is not None:
            self._environment["HOME"] = str(directory)
        self._directory = directory
        self._started: list[ExecutorProcess] = []

    @property
    def journal(self) -> Path:
        return self._directory / "journal"

    def start(self, failpoints: str = "", **settings: str) -> ExecutorProcess:
        """An executor with `WVS_FAILPOINTS` and, in capitals, other `WVS_…` settings."""
        others = {f"WVS_{name.upper()}": text for name, text in settings.items()}
        environment = {**self._environment, "WVS_FAILPOINTS": failpoints, **others}
        log = self._directory / f"executor-{len(self._started)}.log"
        process = ExecutorProcess(environment, log, self._mounts, self._user)
        self._started.append(process)
        return process

    def __iter__(self) -> Iterator[ExecutorProcess]:
        return iter(self._started)

    def close(self) -> None:
        for process in self._started:
            process.close()
