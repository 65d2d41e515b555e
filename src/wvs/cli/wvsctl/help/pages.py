"""Answers `--help` from pre-rendered pages: cyclopts would take a third of a second to render the same text.

`python -m wvs.cli.wvsctl.help.rendering` writes the pages, and a test compares each with the output of cyclopts. This
module imports only modules that the interpreter has already loaded.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

WIDTH: Final = 80
ROOT: Final = "wvsctl"
DIRECTORY: Final = os.path.dirname(__file__)  # noqa: PTH120  # pathlib costs 8 ms
_HELP: Final = ("--help", "-h")
_GROUPS: Final = ((), ("workspace",), ("snapshot",), ("current",), ("task",), ("session",), ("audit",), ("agent",))


def page_for(arguments: Sequence[str]) -> str | None:
    """The help page that these arguments request; None if they request none or the terminal is too narrow."""
    command = tuple(word for word in arguments if word not in _HELP)
    requested = len(command) < len(arguments) and arguments[-1] in _HELP
    if not (requested or command in _GROUPS) or not all(word.replace("-", "").isalpha() for word in command):
        return None
    if any(word.startswith("-") for word in command) or _columns() < WIDTH:
        return None
    try:
        with open(path_of_page(command), encoding="utf-8") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return None


def path_of_page(command: Sequence[str]) -> str:
    """The file with the help page of a command, given as its words: `("task", "list")`."""
    return os.path.join(DIRECTORY, ".".join((ROOT, *command)) + ".txt")  # noqa: PTH118


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH
