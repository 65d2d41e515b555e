"""The guardian of a frozen command: a process beside `wvsctl agent run` that thaws the command if the wrapper cannot.

It runs as a script, `guardian_process.py DIRECTORY FILE THAW`. It imports nothing of WVS, because it has to be small
and to outlive whatever kills the wrapper. It reads from its input until when the command may stay frozen, and in which
tree:

    freeze DEADLINE FILE TREE      frozen until DEADLINE (seconds of CLOCK_MONOTONIC); FILE and TREE in base64
    free                           running

If the deadline passes while the wrapper is killed, stopped or hangs, the guardian thaws the command (design §7, step
8). That is safe for a snapshot: the wrapper does not answer `still_frozen` with the old token, so the clone is
discarded. If the name in `FILE` is not `TREE` by then, the live tree was replaced: the guardian kills the command,
which is still in the old tree, instead of thawing it.
"""

import base64
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_RETRY_S = 1.0
_READ_PATIENCE_S = 1.0
_WRAPPER_HEAD_START_S = 2.0
"""A wrapper that runs thaws the command itself at the deadline, and may restart it; the guardian waits longer."""
_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class Guardian:
    """Watches the cgroup `directory`. Writing `thaw` to its `file` thaws it."""

    def __init__(self, directory: Path, file: str, thaw: str) -> None:
        self._directory = directory
        self._file = file
        self._thaw = thaw
        self._deadline: float | None = None
        self._name_file = self._tree = b""

    def watch(self, source: int) -> None:
        """Obeys the lines from `source`. Returns once `source` has ended and the command is not frozen."""
        rest = b""
        is_open = True
        while is_open or self._deadline is not None:
            extra_s = _WRAPPER_HEAD_START_S if is_open else 0.0
            pause = None if self._deadline is None else max(0.0, self._deadline + extra_s - time.monotonic())
            ready = select.select([source] if is_open else [], [], [], pause)[0]
            if ready:
                chunk = os.read(source, 65536)
                is_open = bool(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._handle(line)
            elif self._deadline is not None and self._thaw_or_kill():
                self._deadline = None
            elif self._deadline is not None:
                self._deadline = time.monotonic() + _RETRY_S

    def _handle(self, line: bytes) -> None:
        match line.split(b" "):
            case [b"freeze", deadline, name_file, tree]:
                self._deadline = float(deadline)
                self._name_file, self._tree = base64.b64decode(name_file), base64.b64decode(tree)
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

    def _pids(self) -> Iterator[int]:
        for file in (self._directory / "cgroup.procs", *self._directory.glob("**/*/cgroup.procs")):
            yield from map(int, file.read_text().split())


if __name__ == "__main__":
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # it ends when its input ends
    Guardian(Path(sys.argv[1]), *sys.argv[2:4]).watch(0)
