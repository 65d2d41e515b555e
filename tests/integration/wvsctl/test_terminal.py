"""On a terminal: colours, a bar, and questions."""

import os
import pty
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

from msgspec import Struct
from tests.integration.wvsctl.consoles import Wvsctl, working


class TerminalResult(Struct, frozen=True):
    code: int
    raw: str

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw).replace("\r\n", "\n")


def run_on_terminal(wvsctl: Wvsctl, *arguments: str, typed: Sequence[tuple[str, bytes]] = ()) -> TerminalResult:
    """Runs the console on a terminal of 120 columns and types each answer when its prompt appears."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    child = subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvsctl", "--url", wvsctl.url, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the controlling terminal
    )
    os.close(theirs)
    seen, waiting = b"", list(typed)
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
            if waiting and waiting[0][0].encode() in seen:
                os.write(ours, waiting.pop(0)[1])
    except OSError:  # EIO: the console has ended
        pass
    finally:
        os.close(ours)
    return TerminalResult(child.wait(30), seen.decode())


def test_a_list_is_a_table_with_colours(wvsctl: Wvsctl, workspace: str) -> None:
    shown = run_on_terminal(wvsctl, "workspace", "list", "--name", workspace)
    assert "\x1b[32mactive\x1b[0m" in shown.raw
    assert shown.text.splitlines()[0].split()[:3] == ["NAME", "ID", "STATE"]


def test_json_on_a_terminal_is_the_same_json(wvsctl: Wvsctl, workspace: str) -> None:
    shown = run_on_terminal(wvsctl, "workspace", "get", workspace, "--json")
    assert shown.text.encode() == wvsctl.raw(f"/v1/workspaces/{workspace}") + b"\n"


def test_a_drop_needs_the_answer_yes(wvsctl: Wvsctl, workspace: str, snapshot: str) -> None:
    for typed in (b"n\n", b"\n", b"\x04"):
        shown = run_on_terminal(wvsctl, "snapshot", "drop", workspace, snapshot, typed=[("[y/N]", typed)])
        assert shown.code == 1, shown
        assert "nothing was changed" in shown.text
    assert wvsctl.json("snapshot", "get", workspace, snapshot)["state"] == "ready"
    shown = run_on_terminal(wvsctl, "snapshot", "drop", workspace, snapshot, typed=[("[y/N]", b"y\n")])
    assert shown.code == 0
    assert "state      dropped" in shown.text


def test_ctrl_c_at_a_question_exits_130_and_changes_nothing(wvsctl: Wvsctl, workspace: str) -> None:
    shown = run_on_terminal(wvsctl, "workspace", "disable", workspace, typed=[("[y/N]", b"\x03")])
    assert shown.code == 130
    assert wvsctl.json("workspace", "get", workspace)["state"] == "active"


def test_a_bar_is_drawn_while_a_task_waits_and_ctrl_c_restores_the_terminal(
    idle: Wvsctl, queued: tuple[str, str]
) -> None:
    shown = run_on_terminal(idle, "task", "wait", queued[1], typed=[("workspace_init: queued", b"\x03")])
    assert shown.code == 130
    assert "━" in shown.text
    assert "continues without this console" in shown.text
    assert shown.raw.rindex("\x1b[?25h") > shown.raw.rindex("\x1b[?25l"), "the cursor stays hidden"


def test_the_result_replaces_the_bar(
    idle: Wvsctl, idle_environment: dict[str, str], queued: tuple[str, str], tmp_path: Path
) -> None:
    with working(idle_environment, tmp_path / "executor.log"):
        shown = run_on_terminal(idle, "task", "wait", queued[1])
    assert shown.code == 0
    assert "state      succeeded" in shown.text
