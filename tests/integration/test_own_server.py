"""The server of the test run itself: it must not outlive a pytest that was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wvs.postgres.leftover import is_alive, postmaster_pid

_TESTS = Path(__file__).parents[1]
_TEST = """
import os, pathlib, time

def test_that_never_ends(database_url):
    note = pathlib.Path(os.environ["NOTE"])
    note.with_suffix(".new").write_text(os.environ["WVS_TEST_RUN_DIR"])
    note.with_suffix(".new").rename(note)
    time.sleep(600)
"""


_FAILS = """
import os, signal, time, psycopg, pytest
from pathlib import Path
from wvs.postgres.embedded import EmbeddedPostgres

@pytest.fixture
def server(tmp_path):
    tmp_path.chmod(0o755)
    server = EmbeddedPostgres(tmp_path, durable=False)
    server.start()
    yield server
    server.stop()

@pytest.mark.timeout(5, func_only=True)
def test_that_waits_for_a_server_that_was_killed(server):
    os.kill(server.pid, signal.SIGKILL)
    while True:
        try: psycopg.connect(server.url()).close()
        except psycopg.OperationalError: time.sleep(0.1)

def test_that_waits_for_the_server_of_the_run(database_url):
    raise TimeoutError
"""


@pytest.mark.skipif("WVS_TEST_DATABASE_URL" in os.environ, reason="the run starts no server of its own")
def test_a_test_that_ran_out_of_time_shows_what_the_server_said_and_what_its_processes_do(tmp_path: Path) -> None:
    done = subprocess.run(
        _prepared(tmp_path, _FAILS),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_TESTS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    own, run = done.stdout.split("_ test_that_waits_for_the_server_of_the_run _")
    assert "Timeout" in own
    for state in (own, run):
        assert "- PostgreSQL -" in state
        assert "database system is ready to accept connections" in state
    assert f"exit code {-signal.SIGKILL}" in own
    assert "state S, waits in" in run
    assert "checkpointer" in run


@pytest.mark.skipif("WVS_TEST_DATABASE_URL" in os.environ, reason="the run starts no server of its own")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_neither_server_nor_directory_outlives_a_pytest_ended_by_a_signal(tmp_path: Path, number: signal.Signals):
    command = _prepared(tmp_path, _TEST)
    note = tmp_path / "note"
    with (tmp_path / "out").open("wb") as out:
        run = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "NOTE": str(note), "PYTHONPATH": str(_TESTS.parent)},
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


def _prepared(directory: Path, test: str) -> list[str]:
    """The command of a run of its own in `directory`."""
    (directory / "test_inner.py").write_text(test)
    (directory / "conftest.py").write_text((_TESTS / "conftest.py").read_text())
    (directory / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", str(directory)]


def _wait_until(condition, output: Path, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)
