"""What the wrapper tells the guardian of its command (see guardian.py), which outlives it."""

import base64
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from wvs.agent import guardian

_GONE_WITHIN_S: Final = 2.0


class Guard:
    """A guardian over one cgroup; told of every standstill, it ends one that outlasts its deadline."""

    def __init__(self, directory: Path, file: str, thaw: str) -> None:
        """Starts it. The cgroup thaws when `thaw` is written to its `file`."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, directory, file, thaw],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # a terminal's keys and hang-up are not for it
        )

    def holds_until(self, deadline: float, tree: str) -> None:
        """The command stands still in `tree`, or is about to, until `deadline` (time.monotonic) at the latest."""
        link = Path(tree).parents[2] / "current"
        words = (base64.b64encode(os.fsencode(path)).decode() for path in (link, tree))
        self._tell(f"freeze {deadline:.6f} {' '.join(words)}\n")

    def is_free(self) -> None:
        """Nothing stands still any more."""
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
