"""Pre-rendered help pages: the same text as the output of cyclopts, and fast."""

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


@pytest.mark.parametrize("command", PAGES, ids=lambda command: " ".join(command) or "root")
def test_a_page_equals_the_output_of_cyclopts(command: tuple[str, ...]) -> None:
    assert Path(path_of_page(command)).read_text(encoding="utf-8") == render(command), (
        "run: python -m wvs.cli.wvsctl.help.rendering"
    )
    assert page_for([*command, "--help"]) == page_for([*command, "-h"]) == render(command)


def test_a_removed_command_leaves_no_page() -> None:
    assert set(Path(DIRECTORY).glob("*.txt")) == {Path(path_of_page(command)) for command in PAGES}


@pytest.mark.parametrize("group", [command for command in PAGES if any(page[:-1] == command for page in PAGES)])
def test_a_group_without_a_command_prints_its_help(group: tuple[str, ...]) -> None:
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
def test_all_other_arguments_go_to_the_program(arguments: tuple[str, ...]) -> None:
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


def test_help_imports_no_slow_module() -> None:
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
        """Processor time, which other load on the machine hardly changes."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "wvs.cli.wvsctl", "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.150
