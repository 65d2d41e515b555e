"""Help from texts that were rendered before: the same words as cyclopts says, and fast."""

import fcntl
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from wvs.cli.wvsctl.help.pages import DIRECTORY, page_for, path_of_page
from wvs.cli.wvsctl.help.rendering import commands, render

PAGES = list(commands())


@pytest.mark.parametrize("words", PAGES, ids=lambda words: " ".join(words) or "root")
def test_page_is_what_cyclopts_says_live(words: tuple[str, ...]) -> None:
    assert Path(path_of_page(words)).read_text(encoding="utf-8") == render(words), (
        "run: python -m wvs.cli.wvsctl.help.rendering"
    )
    assert page_for([*words, "--help"]) == page_for([*words, "-h"]) == render(words)


def test_no_page_is_left_of_a_command_that_is_gone() -> None:
    assert set(Path(DIRECTORY).glob("*.txt")) == {Path(path_of_page(words)) for words in PAGES}


@pytest.mark.parametrize("group", [words for words in PAGES if any(page[:-1] == words for page in PAGES)])
def test_a_group_without_a_command_is_explained(group: tuple[str, ...]) -> None:
    assert page_for(group) == render(group)


@pytest.mark.parametrize(
    "arguments",
    [
        ("workspace", "list"),
        ("completion",),
        ("nonsense", "--help"),
        ("--json", "workspace", "--help"),
        ("workspace", "--help", "list"),
        ("../../../../etc/passwd", "--help"),
        ("workspace.list", "--help"),
    ],
)
def test_everything_else_is_left_to_the_program(arguments: tuple[str, ...]) -> None:
    assert page_for(arguments) is None


def test_a_narrow_terminal_gets_help_that_fits() -> None:
    result = _run_in_terminal(columns=60)
    assert "wvsctl COMMAND [OPTIONS]" in result
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in result.splitlines()]
    assert max(map(len, lines)) == 60


def _run_in_terminal(columns: int) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm"}
    environment.pop("COLUMNS", None)
    child = subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvsctl", "--help"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    chunks: list[bytes] = []
    try:
        while chunk := os.read(ours, 65536):
            chunks.append(chunk)
    except OSError:  # EIO: the child closed its end
        pass
    finally:
        os.close(ours)
    assert child.wait(20) == 0
    return b"".join(chunks).decode()


def test_help_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys, runpy; sys.argv = ['wvsctl', 'snapshot', '--help']\n"
        "try: runpy.run_module('wvs.cli.wvsctl', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted(name for name in ('cyclopts', 'rich', 'msgspec', 'http.client') if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")


def test_help_answers_within_150_ms() -> None:
    def once() -> float:
        """Processor time: what it takes on a machine that has nothing else to do, which one that runs tests has."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "wvs.cli.wvsctl", "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.150
