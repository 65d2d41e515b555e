"""Renders the help pages; `python -m wvs.cli.wvsctl.help.rendering` writes them beside this module."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclopts import App
from rich.console import Console

from wvs.cli.wvsctl.app import app
from wvs.cli.wvsctl.help.pages import DIRECTORY, WIDTH, path_of_page


def commands(group: App = app, command: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields every group and command as a tuple of its words, the program itself first."""
    yield command
    for name in group:
        if not name.startswith("-"):
            yield from commands(group[name], (*command, name))


def render(command: Sequence[str]) -> str:
    """The output of cyclopts for `wvsctl … --help`, without colours and trailing spaces."""
    out = io.StringIO()
    app.meta([*command, "--help"], console=Console(file=out, width=WIDTH, color_system=None))
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def write_all() -> None:
    """Writes all pages, and deletes the pages of commands that no longer exist."""
    directory = Path(DIRECTORY)
    directory.mkdir(exist_ok=True)
    for stale in directory.glob("*.txt"):
        stale.unlink()
    for command in commands():
        Path(path_of_page(command)).write_text(render(command), encoding="utf-8")


if __name__ == "__main__":
    write_all()
