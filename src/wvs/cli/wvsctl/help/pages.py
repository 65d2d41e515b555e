"""`--help` from texts rendered before: cyclopts would take a third of a second to come to the same words.

`python -m wvs.cli.wvsctl.help.rendering` writes the texts, and a test compares each with what cyclopts says. Only
modules that the interpreter has loaded anyway are imported here.
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
    """The help text that these arguments ask for; None if they ask for something else or the terminal is too narrow."""
    words = tuple(word for word in arguments if word not in _HELP)
    asked = len(words) < len(arguments) and arguments[-1] in _HELP
    if not (asked or words in _GROUPS) or not all(word.replace("-", "").isalpha() for word in words):
        return None
    if any(word.startswith("-") for word in words) or _columns() < WIDTH:
        return None
    try:
        with open(path_of_page(words), encoding="utf-8") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return None


def path_of_page(words: Sequence[str]) -> str:
    """The file that holds the help of the command with these words."""
    return os.path.join(DIRECTORY, ".".join((ROOT, *words)) + ".txt")  # noqa: PTH118


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH
