"""The API and executor processes of one test: starts and signals them, and notes when each one ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NURSERY = Path(__file__).with_name("nursery.py")
START_S = 60.0
ARM_S = 10.0


@dataclass
class Process:
    """One API or executor. `ended_ns` is when the test noticed its end, which is a little later than the end."""

    number: int
    program: str
    pid: int
    control: Path
    ended_ns: int | None = None
    code: int | None = None
    was_stopped: bool = False
    """A failpoint has stopped it at some time. `Processes.find_stopped` sets it, and it stays true: a process that was
    once stopped in the middle of an operation may continue that operation late."""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def alive(self) -> bool:
        return not self.ended.is_set()

    @property
    def is_stopped(self) -> bool:
        """Whether the process is stopped now (proc(5): state T)."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def signal(self, number: int) -> None:
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def arm(self, specification: str) -> bool:
        """Arms failpoints in the process; False if it cannot accept them (it has ended, is stopped, or is starting)."""
        if not self.alive or self.is_stopped:
            return False
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(ARM_S)
                line.connect(str(self.control))
                line.sendall(f"{specification}\n".encode())
                return line.recv(16) == b"armed"
        except OSError:
            return False


class Processes:
    """All processes of one test; `close` ends them."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self.all: dict[int, Process] = {}
        self._lock = threading.Condition()
        self._started: list[int] = []
        self._nursery = subprocess.Popen(
            [sys.executable, str(NURSERY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(directory / "nursery.log").open("w"),
            env={**os.environ, **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, program: str, **environment: str) -> Process:
        """Starts a process and returns at once, before the process is ready."""
        number = len(self.all)
        control = self._directory / f"control-{number}"
        order = {
            "program": program,
            "environment": {**self._environment, **environment},
            "log": str(self._directory / f"{program}-{number}.log"),
            "control": str(control),
        }
        assert self._nursery.stdin is not None
        with self._lock:
            self._nursery.stdin.write(json.dumps(order).encode() + b"\n")
            self._nursery.stdin.flush()
            if not self._lock.wait_for(lambda: bool(self._started), START_S):
                raise TimeoutError(f"no process was started: see {self._directory}/nursery.log")
            return self._remember(Process(number, program, self._started.pop(), control))

    def find_stopped(self) -> list[Process]:
        """The processes that are stopped now."""
        stopped = [p for p in self.all.values() if p.alive and p.is_stopped]
        for process in stopped:
            process.was_stopped = True
        return stopped

    def executors(self) -> list[Process]:
        """The live executors, including stopped ones, oldest first."""
        return [p for p in self.all.values() if p.program == "executor" and p.alive]

    def by_pid(self, pid: int) -> Process:
        """The newest process that had this id."""
        return next(p for p in reversed(self.all.values()) if p.pid == pid)

    def close(self) -> None:
        """Kills all processes that are left; no child survives the nursery."""
        assert self._nursery.stdin is not None
        for process in self.executors():
            process.signal(signal.SIGCONT)
        self._nursery.stdin.close()
        self._nursery.wait(START_S)
        self._reader.join(START_S)

    def _remember(self, process: Process) -> Process:
        self.all[process.number] = process
        self._lock.notify_all()
        return process

    def _read(self) -> None:
        assert self._nursery.stdout is not None
        for line in self._nursery.stdout:
            message: dict[str, Any] = json.loads(line)
            with self._lock:
                if "started" in message:
                    self._started.append(message["started"])
                    self._lock.notify_all()
                    # `start` must register the process before its end can be processed.
                    self._lock.wait_for(lambda: not self._started, START_S)
                    continue
                process = self.by_pid(message["ended"])
                process.ended_ns, process.code = message["at_ns"], message["code"]
                process.ended.set()
