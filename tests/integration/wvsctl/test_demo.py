"""The demo: every check passes, it leaves nothing behind, and it fails if a check fails."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wvs.cli.wvsctl.demo import run
from wvs.cli.wvsctl.demo.service import has_ended
from wvs.cli.wvsctl.demo.walkthrough import STEPS, Walkthrough, create_workspace


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
def test_every_check_of_the_demo_passes_and_it_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = _start(tmp_path)
    out, _ = demo.communicate()
    assert demo.returncode == 0, out
    assert "\nEvery check passed, in " in out
    for number in range(1, len(STEPS) + 3):
        assert f"\n{number:2}  " in out
    assert list(tmp_path.iterdir()) == []
    assert list(_processes_below(tmp_path)) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    demo = _start(tmp_path)
    assert demo.stdout is not None
    next(line for line in demo.stdout if "Create a workspace" in line)
    pids = list(_processes_below(tmp_path))
    assert pids
    demo.send_signal(sent)
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == code, out
    assert all(map(has_ended, pids))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_ends_the_demo_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drop_an_unknown_snapshot(walkthrough: Walkthrough) -> None:
        walkthrough.demo.wvsctl("snapshot", "drop", "demo", "snap_00000000000000000000000000", "--yes")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(run, "STEPS", (create_workspace, drop_an_unknown_snapshot))
    assert run.run_demo() == 1
    out = capsys.readouterr().out
    assert "THE DEMO FAILED  exit code 0 expected, but wvsctl exited with 3" in out
    assert "the end of the service's log" in out
    assert list(tmp_path.iterdir()) == []
