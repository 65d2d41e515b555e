"""Renders every help text for `pages`: `python -m wvs.cli.wvsctl.help.rendering` writes them beside this module."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclopts import App
from rich.console import Console

from wvs.cli.wvsctl.app import app
from wvs.cli.wvsctl.help.pages import DIRECTORY, WIDTH, path_of_page


def commands(within: App = app, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every group and command, the program itself first."""
    yield words
    for name in within:
        if not name.startswith("-"):
            yield from commands(within[name], (*words, name))


def render(words: Sequence[str]) -> str:
    """What cyclopts prints for `wvsctl … --help`, without colours and without blanks at the ends of lines."""
    out = io.StringIO()
    app.meta([*words, "--help"], console=Console(file=out, width=WIDTH, color_system=None))
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def write_all() -> None:
    """Replace the files of all pages."""
    directory = Path(DIRECTORY)
    directory.mkdir(exist_ok=True)
    for stale in directory.glob("*.txt"):
        stale.unlink()
    for words in commands():
        Path(path_of_page(words)).write_text(render(words), encoding="utf-8")


if __name__ == "__main__":
    write_all()
