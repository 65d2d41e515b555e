"""Where the console writes: results to stdout, everything said on the way to stderr."""

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from wvs.cli.wvsctl.output.layout import aligned, printable


class Screen:
    """The two streams of one command.

    With `as_json` stdout carries what the API answered, byte for byte, and nothing else.
    """

    def __init__(self, *, as_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self.out = out or sys.stdout
        self.err = err or sys.stderr

    @property
    def is_interactive(self) -> bool:
        """Whether a person is there to answer a question."""
        return sys.stdin.isatty() and self.err.isatty()

    @property
    def out_is_terminal(self) -> bool:
        return self.out.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def err_is_terminal(self) -> bool:
        return self.err.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, message: str) -> None:
        """A message for the person; never part of the result."""
        print(printable(message), file=self.err, flush=True)

    def show(self, text: str) -> None:
        """A line of the result."""
        print(printable(text), file=self.out)

    def show_json(self, document: bytes) -> None:
        """A document of the API, as it came."""
        self.out.flush()
        self.out.buffer.write(document + b"\n")
        self.out.buffer.flush()

    def show_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows of a two-column description, the first column as a label."""
        for line in aligned(rows):
            self.show(line)
