"""The server of the test run itself: it must not outlive a pytest that was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wvs.postgres.leftover import is_alive, postmaster_pid

_TEST = """
import os, pathlib, time

def test_that_never_ends(database_url):
    note = pathlib.Path(os.environ["NOTE"])
    note.with_suffix(".new").write_text(os.environ["WVS_TEST_RUN_DIR"])
    note.with_suffix(".new").rename(note)
    time.sleep(600)
"""


@pytest.mark.skipif("WVS_TEST_DATABASE_URL" in os.environ, reason="the run starts no server of its own")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_neither_server_nor_directory_outlives_a_pytest_ended_by_a_signal(tmp_path: Path, number: signal.Signals):
    tests = Path(__file__).parents[1]
    (tmp_path / "test_endless.py").write_text(_TEST)
    (tmp_path / "conftest.py").write_text((tests / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    note = tmp_path / "note"
    with (tmp_path / "out").open("wb") as out:
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, "NOTE": str(note)},
            stdout=out,
            stderr=out,
        )
    try:
        _wait_until(note.exists, tmp_path / "out")
        run_dir = Path(note.read_text())
        server = postmaster_pid(run_dir / "server" / "postgres")
        assert server is not None
        assert is_alive(server)
    finally:
        run.send_signal(number)
        run.wait(60)
    _wait_until(lambda: not is_alive(server) and not run_dir.exists(), tmp_path / "out")


def _wait_until(condition, output: Path, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)
