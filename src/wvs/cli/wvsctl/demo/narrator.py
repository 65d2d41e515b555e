"""Prints the demo: numbered steps, the commands that each step runs, and every check with its result."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from wvs.cli.wvsctl.output.layout import duration


class CheckFailed(Exception):
    """A check of the demo failed; the demo ends."""


class Narrator:
    """Prints the demo to stdout while it runs."""

    def __init__(self) -> None:
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Generator[None]:
        """Prints the number and title of a step before the block, and the duration after it."""
        self._number += 1
        self.print(f"\n{self._number:2}  {title}")
        began = time.monotonic()
        yield
        self.print(f"    ({duration(time.monotonic() - began)})")

    def explain(self, text: str) -> None:
        """Prints what the demo does or why, without a check."""
        self.print(f"    {text}")

    def show_command(self, command: str) -> None:
        """Prints a command as a user would type it."""
        self.print(f"    $ {command}")

    def show_output(self, text: str) -> None:
        """Prints the part of a command's output that matters here."""
        for line in text.splitlines():
            self.print(f"      {line}")

    def check(self, claim: str, *, holds: bool, actual: object = "") -> None:
        """Prints a claim that `holds`; raises `CheckFailed`, with the actual value if given, for one that does not."""
        if not holds:
            raise CheckFailed(f"{claim}: this is false" + (f"; the actual value is {actual}" if actual != "" else ""))
        self.print(f"    ✓ {claim}")

    def print(self, text: str) -> None:
        """Prints a line and flushes it, so that a reader of a pipe sees it at once."""
        print(text, flush=True)


def allow_any_encoding() -> None:
    """Makes a stdout that cannot encode a tick print a replacement instead of failing."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
