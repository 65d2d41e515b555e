"""The demo's voice: a numbered step, the command it runs, and each proof; what is not as told ends the story."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from wvs.cli.wvsctl.output.layout import duration


class NotAsTold(Exception):
    """A step came out other than the story says."""


class Teller:
    """Prints the story to stdout as it happens."""

    def __init__(self) -> None:
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Generator[None]:
        """One step; how long it took is told at its end."""
        self._number += 1
        self._print(f"\n{self._number:2}  {title}")
        began = time.monotonic()
        yield
        self._print(f"    ({duration(time.monotonic() - began)})")

    def does(self, what: str) -> None:
        """Something that is done, not proven."""
        self._print(f"    {what}")

    def runs(self, command: str) -> None:
        """A command as a person would type it."""
        self._print(f"    $ {command}")

    def shows(self, text: str) -> None:
        """What a command printed, as far as it belongs to the story."""
        for line in text.splitlines():
            self._print(f"      {line}")

    def proves(self, told: str, *, holds: bool, instead: object = "") -> None:
        """A claim of the story; raises `NotAsTold` unless it `holds`."""
        if not holds:
            raise NotAsTold(f"{told}: no" + (f", instead {instead}" if instead != "" else ""))
        self._print(f"    ✓ {told}")

    def says(self, text: str) -> None:
        """A line outside of any step."""
        self._print(text)

    def _print(self, text: str) -> None:
        print(text, flush=True)


def speak_any_language() -> None:
    """Let a stdout that cannot show a tick show something else instead of failing."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
