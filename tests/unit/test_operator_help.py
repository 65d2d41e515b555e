"""The help of `wvs`: a command shows the settings that it needs, and where all are."""

import io
import re
from collections.abc import Iterator

import pytest
from cyclopts import App
from rich.console import Console

from wvs.cli.wvs.app import app
from wvs.settings import describe_settings


def _commands(group: App = app, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in group:
        if not name.startswith("-"):
            yield (*words, name)
            yield from _commands(group[name], (*words, name))


def _help(*words: str) -> str:
    out = io.StringIO()
    app([*words, "--help"], console=Console(file=out, width=200, color_system=None))
    return out.getvalue()


def test_the_help_of_the_program_lists_every_setting() -> None:
    assert set(re.findall(r"• (WVS_\w+):", _help())) == {doc.variable for doc in describe_settings()}


@pytest.mark.parametrize("words", list(_commands()), ids=" ".join)
def test_the_help_of_a_command_lists_few_settings_and_names_the_place_of_all(words: tuple[str, ...]) -> None:
    text = _help(*words)
    assert len(re.findall(r"• WVS_\w+:", text)) <= 6
    assert text.rstrip().endswith("All settings: wvs --help")


def test_the_help_of_the_executor_shows_its_own_settings() -> None:
    shown = re.findall(r"• (WVS_\w+):", _help("executor"))
    assert "WVS_EXECUTOR_SLOTS" in shown
    assert "WVS_ALLOWED_HOSTS" not in shown
