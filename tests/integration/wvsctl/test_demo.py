"""The demo: comes out as told, leaves nothing behind, and says so when something is not as told."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wvs.cli.wvsctl.demo import run
from wvs.cli.wvsctl.demo.service import is_gone
from wvs.cli.wvsctl.demo.walkthrough import STEPS, Story, create


def _start(scratch: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvsctl", "demo"],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _processes_below(directory: Path) -> Iterator[int]:
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(directory).encode() in status.read_bytes():
                yield int(status.parent.name)
        except OSError:
            continue


@pytest.mark.timeout(300)
def test_the_whole_story_comes_out_as_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = _start(tmp_path)
    out, _ = demo.communicate()
    assert demo.returncode == 0, out
    assert out.splitlines()[-1].startswith("All as told")
    for number in range(1, len(STEPS) + 3):
        assert f"\n{number:2}  " in out
    assert list(tmp_path.iterdir()) == []
    assert list(_processes_below(tmp_path)) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_ends_it_early_finds_nothing_left(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    demo = _start(tmp_path)
    assert demo.stdout is not None
    next(line for line in demo.stdout if "A workspace is made" in line)
    pids = list(_processes_below(tmp_path))
    assert pids
    demo.send_signal(sent)
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == code, out
    assert all(map(is_gone, pids))
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_not_as_told_ends_it_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def a_lie(story: Story) -> None:
        story.stage.wvsctl("snapshot", "drop", "demo", "snap_00000000000000000000000000", "--yes")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(run, "STEPS", (create, a_lie))
    assert run.perform() == 1
    told = capsys.readouterr().out
    assert "NOT AS TOLD  exit code 0: no, instead 3" in told
    assert "the end of the service's log" in told
    assert list(tmp_path.iterdir()) == []
