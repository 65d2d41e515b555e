"""The guardian of a command: a process beside `wvsctl agent run` that does what a killed wrapper no longer can.

It runs as a script, `guardian_process.py DIRECTORY FILE THAW`. It imports nothing of WVS, because it has to be small
and to outlive whatever kills the wrapper. It reads from its input until when the command may stay frozen, and in which
tree:

    session HOST PORT TLS REQUEST  the HTTP request that ends the session, with its secret; HOST and REQUEST in base64
    freeze DEADLINE FILE TREE      frozen until DEADLINE (seconds of CLOCK_MONOTONIC); FILE and TREE in base64
    free                           running
    left                           all processes have ended, and the wrapper has ended the session itself

If the deadline passes while the wrapper is killed, stopped or hangs, the guardian thaws the command (design §7, step
8). That is safe for a snapshot: the wrapper does not answer `still_frozen` with the old token, so the clone is
discarded. If the name in `FILE` is not `TREE` by then, the live tree was replaced: the guardian kills the command,
which is still in the old tree, instead of thawing it.

If the input ends without `left`, the wrapper was killed. The guardian then waits until the cgroup is empty, removes it,
and ends the session. Only a removed cgroup is a proof: the kernel removes none that has a process, and a command that
was about to join it fails instead of starting.
"""

import base64
import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket

_RETRY_S = 1.0
_READ_PATIENCE_S = 1.0
_WRAPPER_HEAD_START_S = 2.0
"""A wrapper that runs thaws the command itself at the deadline, and may restart it; the guardian waits longer."""
_LOOK_S = 0.5
"""How often the guardian of a killed wrapper looks whether the command has ended."""
_REQUEST_TIMEOUT_S = 10.0
_LONGEST_PAUSE_S = 60.0
_PATIENCE_S = 24 * 3600.0
"""A service that is away for longer gets no request any more; then a person evicts the session."""
_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class Ending(NamedTuple):
    """The request that ends the session."""

    host: str
    port: int
    tls: bool
    request: bytes

    def is_answered(self) -> bool:
        """Sends the request. Whether the service has answered, also with a refusal: then the session is not active."""
        import http.client  # noqa: PLC0415 - most guardians need neither
        import socket  # noqa: PLC0415

        try:
            with (
                socket.create_connection((self.host, self.port), _REQUEST_TIMEOUT_S) as plain,
                self._secured(plain) as s,
            ):
                s.sendall(self.request)
                answer = http.client.HTTPResponse(s)
                answer.begin()
                body = answer.read()
        except (OSError, http.client.HTTPException):
            return False
        return answer.status < 300 or (answer.status < 500 and b'"code"' in body)  # a proxy refuses without a code

    def _secured(self, plain: "socket.socket") -> "socket.socket":
        if not self.tls:
            return plain
        import ssl  # noqa: PLC0415

        return ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class Guardian:
    """Watches the cgroup `directory`. Writing `thaw` to its `file` thaws it."""

    def __init__(self, directory: Path, file: str, thaw: str) -> None:
        self._directory = directory
        self._file = file
        self._thaw = thaw
        self._procs = os.open(directory / "cgroup.procs", os.O_RDONLY)
        self._deadline: float | None = None
        self._name_file = self._tree = b""
        self._ending: Ending | None = None

    def watch(self, source: int) -> None:
        """Obeys the lines from `source`.

        Returns once `source` has ended, the command is not frozen, and the session has ended if the guardian has to end
        it.
        """
        rest = b""
        is_open = True
        while is_open or self._deadline is not None or self._ending is not None:
            if not is_open and self._ending is not None and self._is_removed():
                _end(self._ending)
                return
            ready = select.select([source] if is_open else [], [], [], self._pause_s(is_open=is_open))[0]
            if ready:
                chunk = os.read(source, 65536)
                is_open = bool(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._handle(line)
            elif self._deadline is not None and self._deadline <= time.monotonic():
                self._deadline = None if self._thaw_or_kill() else time.monotonic() + _RETRY_S

    def _pause_s(self, *, is_open: bool) -> float | None:
        """How long to wait for a line."""
        if is_open:
            until = None if self._deadline is None else self._deadline + _WRAPPER_HEAD_START_S
        else:
            look = time.monotonic() + _LOOK_S
            until = look if self._deadline is None else min(look, self._deadline)
        return None if until is None else max(0.0, until - time.monotonic())

    def _handle(self, line: bytes) -> None:
        match line.split(b" "):
            case [b"freeze", deadline, name_file, tree]:
                self._deadline = float(deadline)
                self._name_file, self._tree = base64.b64decode(name_file), base64.b64decode(tree)
            case [b"session", host, port, tls, request]:
                to = base64.b64decode(host).decode()
                self._ending = Ending(to, int(port), tls == b"1", base64.b64decode(request))
            case [b"left"]:
                self._deadline = self._ending = None
            case _:
                self._deadline = None

    def _thaw_or_kill(self) -> bool:
        """Thaws the command, or kills it if its tree was replaced. False if it has to be tried again."""
        try:
            if self._is_replaced():
                for pid in self._pids():
                    os.kill(pid, signal.SIGKILL)  # frozen processes die before they run
            (self._directory / self._file).write_text(self._thaw)
        except ProcessLookupError:
            return False
        except FileNotFoundError:
            return True  # the cgroup was removed, so it was empty
        except OSError:
            return False
        return True

    def _is_replaced(self) -> bool:
        """Whether another tree is at the path.

        False if the file cannot be read in time, because the volume may hang, and without the file: somebody removed
        it, and no live tree was replaced.
        """
        names: list[bytes] = []
        reader = threading.Thread(target=self._read_name, args=(names,), daemon=True)
        reader.start()
        reader.join(_READ_PATIENCE_S)
        return bool(self._tree) and any(name not in (b"", self._tree) for name in names)

    def _read_name(self, names: list[bytes]) -> None:
        with suppress(OSError):
            file = Path(os.fsdecode(self._name_file))
            # A link with that text where the filesystem was full when the tree was made.
            names.append(os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes().strip())

    def _is_removed(self) -> bool:
        """Removes the cgroup if it is empty. Whether it is removed now, by whomever.

        A path that is missing proves nothing: somebody may have unmounted the hierarchy. The descriptor does.
        """
        with suppress(OSError):
            if self._is_empty():  # else the empty children of a running command would go
                for directory, _, _ in os.walk(self._directory, topdown=False):
                    Path(directory).rmdir()
        try:
            os.pread(self._procs, 1, 0)
        except OSError as error:
            return error.errno == errno.ENODEV
        return False

    def _is_empty(self) -> bool:
        events = self._directory / "cgroup.events"
        if events.exists():
            return "populated 0" in events.read_text().splitlines()
        return not any(self._pids())

    def _pids(self) -> Iterator[int]:
        for file in (self._directory / "cgroup.procs", *self._directory.glob("**/*/cgroup.procs")):
            yield from map(int, file.read_text().split())


def _end(ending: Ending) -> None:
    """Sends the request until the service answers, for a day at most."""
    gives_up_at = time.monotonic() + _PATIENCE_S
    pause = _RETRY_S
    while not ending.is_answered() and time.monotonic() < gives_up_at:
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


if __name__ == "__main__":
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # it ends when its input ends
    Guardian(Path(sys.argv[1]), *sys.argv[2:4]).watch(0)
