"""The guardian of a frozen command: a process beside `wvsctl agent run` that thaws when that cannot any more.

Run as a script of its own, `guardian_process.py DIRECTORY FILE THAW`. It imports nothing of WVS, because it has to be
small and to outlive whatever kills the wrapper. Its input says until when the command may stay frozen, and in which
tree.

    freeze DEADLINE LINK TREE      in seconds of CLOCK_MONOTONIC; the paths in base64
    free                           it runs again

A deadline that passes while the wrapper is killed, stopped or hangs ends the standstill (design §7, step 8). That is
safe for a snapshot: nobody answers `still_frozen` with the old token then, and the clone is discarded. Where `LINK`
leads elsewhere than to `TREE` by then, the live tree was replaced: what was frozen in the old one is killed instead.
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
_LINK_PATIENCE_S = 1.0
_WRAPPER_FIRST_S = 2.0
"""While the wrapper is there it ends the standstill itself at that deadline, and may start the command anew."""
_ASKED_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


class Guardian:
    """Watches over the cgroup `directory`, which thaws when `thaw` is written to its `file`."""

    def __init__(self, directory: Path, file: str, thaw: str) -> None:
        self._directory = directory
        self._file = file
        self._thaw = thaw
        self._deadline: float | None = None
        self._link = self._tree = b""

    def watch(self, source: int) -> None:
        """Returns once `source` has ended and nothing stands still."""
        rest = b""
        is_open = True
        while is_open or self._deadline is not None:
            late_s = _WRAPPER_FIRST_S if is_open else 0.0
            pause = None if self._deadline is None else max(0.0, self._deadline + late_s - time.monotonic())
            ready = select.select([source] if is_open else [], [], [], pause)[0]
            if ready:
                chunk = os.read(source, 65536)
                is_open = bool(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._hear(line)
            elif self._deadline is not None and self._release():
                self._deadline = None
            elif self._deadline is not None:
                self._deadline = time.monotonic() + _RETRY_S

    def _hear(self, line: bytes) -> None:
        match line.split(b" "):
            case [b"freeze", deadline, link, tree]:
                self._deadline = float(deadline)
                self._link, self._tree = base64.b64decode(link), base64.b64decode(tree)
            case _:
                self._deadline = None

    def _release(self) -> bool:
        """Whether nothing stands still any more; False to be tried again."""
        try:
            if self._is_replaced():
                for pid in self._pids():
                    os.kill(pid, signal.SIGKILL)  # frozen, they die before they run on
            (self._directory / self._file).write_text(self._thaw)
        except ProcessLookupError:
            return False
        except FileNotFoundError:
            return True  # the cgroup is gone, and so is everything that was in it
        except OSError:
            return False
        return True

    def _is_replaced(self) -> bool:
        """False if that cannot be told in time: on a volume that hangs the question may never be answered."""
        found: list[bytes] = []
        asking = threading.Thread(target=self._follow_link, args=(found,), daemon=True)
        asking.start()
        asking.join(_LINK_PATIENCE_S)
        return found not in ([], [self._tree])

    def _follow_link(self, found: list[bytes]) -> None:
        with suppress(OSError):
            found.append(os.path.realpath(self._link, strict=True))

    def _pids(self) -> Iterator[int]:
        for file in (self._directory / "cgroup.procs", *self._directory.glob("**/*/cgroup.procs")):
            yield from map(int, file.read_text().split())


if __name__ == "__main__":
    for number in _ASKED_TO_END:
        signal.signal(number, signal.SIG_IGN)  # its end is the end of its input
    Guardian(Path(sys.argv[1]), *sys.argv[2:4]).watch(0)
