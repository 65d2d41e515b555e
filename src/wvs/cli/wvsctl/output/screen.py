"""Writes the console's output: results to stdout, messages to stderr."""

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from wvs.cli.wvsctl.output.layout import aligned, printable


class Screen:
    """The two output streams of one command.

    With `as_json` stdout carries only the API's answers, byte for byte.
    """

    def __init__(self, *, as_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self.out = out or sys.stdout
        self.err = err or sys.stderr

    @property
    def is_interactive(self) -> bool:
        """Whether a user can answer a question on the terminal."""
        return sys.stdin.isatty() and self.err.isatty()

    @property
    def out_is_terminal(self) -> bool:
        return self.out.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def err_is_terminal(self) -> bool:
        return self.err.isatty() and os.environ.get("TERM") != "dumb"

    def notify(self, message: str) -> None:
        """Prints a message for the user, which is never part of the result."""
        print(printable(message), file=self.err, flush=True)

    def show(self, text: str) -> None:
        """Prints a line of the result."""
        print(printable(text), file=self.out)

    def show_json(self, document: bytes) -> None:
        """Prints a document of the API, unchanged."""
        self.out.flush()
        self.out.buffer.write(document + b"\n")
        self.out.buffer.flush()

    def show_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Prints rows of two columns: a label and a value."""
        for line in aligned(rows):
            self.show(line)
