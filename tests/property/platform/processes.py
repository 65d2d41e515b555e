"""API and executor processes of one test: started, killed, stopped, continued, and when each of them ended."""

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
    """One API or executor. `ended_ns` is set when its end was noticed, which is a little after it."""

    number: int
    program: str
    pid: int
    control: Path
    ended_ns: int | None = None
    code: int | None = None
    stopped: bool = False
    """A failpoint may have stopped it. Only `Processes.find_stopped` says so, and it stays true: a process that once
    stood still in the middle of something may go on with it late."""
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def alive(self) -> bool:
        return not self.ended.is_set()

    @property
    def standing(self) -> bool:
        """Stopped at this moment (proc(5): state T)."""
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
        """Arms failpoints in the process; False if it did not take them (it is gone, stands still, or begins)."""
        if not self.alive or self.standing:
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
    """Everything that runs for one test; `close` ends all of it."""

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
        """Starts a process and returns at once; it takes a moment until it works."""
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
        """The processes that stand still now."""
        standing = [p for p in self.all.values() if p.alive and p.standing]
        for process in standing:
            process.stopped = True
        return standing

    def executors(self) -> list[Process]:
        """Executors that are alive, standing ones included, oldest first."""
        return [p for p in self.all.values() if p.program == "executor" and p.alive]

    def by_pid(self, pid: int) -> Process:
        """The newest process that had this id."""
        return next(p for p in reversed(self.all.values()) if p.pid == pid)

    def close(self) -> None:
        """Kills whatever is left; nothing of it survives the nursery."""
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
            words: dict[str, Any] = json.loads(line)
            with self._lock:
                if "started" in words:
                    self._started.append(words["started"])
                    self._lock.notify_all()
                    # `start` has to file it before its end can be told.
                    self._lock.wait_for(lambda: not self._started, START_S)
                    continue
                process = self.by_pid(words["ended"])
                process.ended_ns, process.code = words["at_ns"], words["code"]
                process.ended.set()
