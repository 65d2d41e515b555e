"""The wrapper's side of the guardian, a process that outlives the wrapper (see guardian_process.py)."""

import base64
import fcntl
import os
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from wvs.agent import guardian_process
from wvs.agent.protocol import Tree
from wvs.agent.transport import PreparedRequest
from wvs.engines.paths import name_beside

_EXIT_TIMEOUT_S: Final = 2.0
_SLACK_S: Final = 0.25
"""A deadline that moves by less is not sent: the guardian waits 2 s longer anyway while the wrapper lives."""


class GuardianHandle:
    """Starts, arms and ends the guardian of one cgroup. An armed guardian thaws the cgroup after the deadline.

    If this process is killed, the guardian ends the session once the cgroup is empty.
    """

    def __init__(self, directory: Path, file: str, thaw: str) -> None:
        """Starts the guardian. Writing `thaw` to `file` in `directory` thaws the cgroup."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian_process.__file__, directory, file, thaw],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # a terminal's keys and hang-up must not reach it
        )
        self.pid: Final = self._process.pid
        self._sent: tuple[float, Tree] | None = None

    def hand_over(self, ending: PreparedRequest) -> None:
        """Gives the guardian the request that ends the session, which has the session's secret (ADR 0012)."""
        host, content = (base64.b64encode(part).decode() for part in (ending.host.encode(), ending.content))
        self._send(f"session {host} {ending.port} {int(ending.tls)} {content}\n")

    def has_read_all(self) -> bool:
        """Whether the guardian has read all that was sent.

        What it has not read, a program of the same user could read from the pipe, by way of /proc/PID/fd.
        """
        assert self._process.stdin is not None
        unread = fcntl.ioctl(self._process.stdin.fileno(), termios.FIONREAD, struct.pack("i", 0))
        return struct.unpack("i", unread)[0] == 0 or self._process.poll() is not None

    def arm(self, deadline: float, tree: Tree) -> None:
        """Reports that the command is frozen in `tree`, or about to be, until `deadline` (time.monotonic)."""
        if self._sent is not None and self._sent[1] == tree and 0 <= deadline - self._sent[0] < _SLACK_S:
            return
        self._sent = deadline, tree
        self._send(f"freeze {deadline:.6f} {_encoded(tree)}\n")

    def disarm(self) -> None:
        """Reports that the command runs."""
        self._sent = None
        self._send("free\n")

    def reap(self) -> None:
        """Takes the exit status of a guardian that has ended."""
        self._process.wait()

    def close(self) -> None:
        """Ends the guardian. Call it when all processes of the command have ended, and the session with them."""
        self._send("left\n")
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # on a volume that hangs, SIGKILL takes effect later
                self._process.wait(_EXIT_TIMEOUT_S)

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the guardian was killed; it is only needed if this process is killed too
            os.write(self._process.stdin.fileno(), line.encode())


@lru_cache(maxsize=4)
def _encoded(tree: Tree) -> str:
    texts = (name_beside(tree.path), tree.name or "")
    return " ".join(base64.b64encode(os.fsencode(text)).decode() for text in texts)
