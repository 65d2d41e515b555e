"""What the wrapper tells the guardian of its command (see guardian_process.py), which outlives it."""

import base64
import os
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from wvs.agent import guardian_process
from wvs.engines.paths import current_beside

_GONE_WITHIN_S: Final = 2.0
_SLACK_S: Final = 0.25
"""By less than this a standstill that goes on longer is not told: the guardian gives a wrapper that lives 2 s more."""


class GuardianHandle:
    """A guardian over one cgroup; told of every standstill, it ends one that outlasts its deadline."""

    def __init__(self, directory: Path, file: str, thaw: str) -> None:
        """Starts it. The cgroup thaws when `thaw` is written to its `file`."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian_process.__file__, directory, file, thaw],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # a terminal's keys and hang-up are not for it
        )
        self._told: tuple[float, str] | None = None

    def holds_until(self, deadline: float, tree: str) -> None:
        """The command stands still in `tree`, or is about to, until `deadline` (time.monotonic) at the latest."""
        if self._told is not None and self._told[1] == tree and 0 <= deadline - self._told[0] < _SLACK_S:
            return
        self._told = deadline, tree
        self._tell(f"freeze {deadline:.6f} {_link_and_tree(tree)}\n")

    def is_free(self) -> None:
        """Nothing stands still any more."""
        self._told = None
        self._tell("free\n")

    def close(self) -> None:
        """Lets it go; to be called when nothing stands still."""
        with suppress(OSError):
            self.is_free()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_GONE_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # on a volume that hangs not even that ends it at once
                self._process.wait(_GONE_WITHIN_S)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed it: what it does is only wanted when we are killed, too
            os.write(self._process.stdin.fileno(), line.encode())


@lru_cache(maxsize=4)
def _link_and_tree(tree: str) -> str:
    link = current_beside(tree)
    return " ".join(base64.b64encode(os.fsencode(path)).decode() for path in (link, tree))
