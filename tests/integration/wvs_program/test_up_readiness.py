"""`ready` of `wvs up` means that tasks run. Ports are taken, children refuse their settings or start late."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.wvs_program.test_up import Up, start

_TIMEOUT_S = 60.0


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def started(data_dir: Path, *options: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    process = start(data_dir, *options, **settings)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(_TIMEOUT_S)


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def wvsctl(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wvs.cli.wvsctl", "--url", url, *arguments],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


@pytest.mark.timeout(180)
def test_a_taken_metrics_port_is_replaced_and_told_and_tasks_run(tmp_path: Path) -> None:
    with taken_port() as port, started(tmp_path, WVS_EXECUTOR_METRICS_PORT=str(port), WVS_POTR="1") as process:
        up = Up(process, tmp_path)
        assert process.stdout is not None
        moved = process.stdout.readline().removeprefix("executor metrics ").strip()
        of_executor, of_api = fetched(moved), fetched(f"{up.url}/metrics")
        assert "wvs_volume_free_bytes" in of_executor
        assert "wvs_http_requests" not in of_executor
        assert "wvs_volume_free_bytes" not in of_api
        assert "\nwvs_executors 1.0\n" in of_api
        warning = next(line for line in (tmp_path / "err").read_text().splitlines() if "metrics_port_taken" in line)
        assert str(port) in warning
        assert (tmp_path / "err").read_text().count("WVS_POTR is not a setting; did you mean WVS_PORT?") == 1
        assert moved in warning
        made = wvsctl(up.url, "workspace", "create", "first")
        assert made.returncode == 0, made.stderr


@pytest.mark.timeout(180)
def test_a_child_that_refuses_its_settings_ends_wvs_up_at_once_with_its_message(tmp_path: Path) -> None:
    with taken_port() as port:
        began = time.monotonic()
        with started(tmp_path, WVS_PORT=str(port)) as process:
            assert process.wait(_TIMEOUT_S) == 2
            assert process.stdout is not None
            assert process.stdout.read() == ""
        assert time.monotonic() - began < 30
    errors = (tmp_path / "err").read_text()
    assert "`wvs api` refused its settings" in errors.splitlines()[-1]
    assert f"WVS_PORT={port}: Address already in use" in errors.splitlines()[-1]
    assert errors.count('"command":"api"') == 1, "restarted"


@pytest.mark.timeout(180)
def test_a_volume_of_another_database_ends_wvs_up_at_once_with_its_message(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        Up(process, tmp_path)
    (database,) = (path for path in tmp_path.iterdir() if (path / "PG_VERSION").exists())
    database.rename(tmp_path / "lost")
    began = time.monotonic()
    with started(tmp_path) as process:
        assert process.wait(_TIMEOUT_S * 2) == 2
    assert time.monotonic() - began < 30
    assert "belongs to the database cluster" in (tmp_path / "err").read_text().splitlines()[-1]


@pytest.mark.timeout(180)
def test_ready_waits_for_the_executor(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        executor = _pid_of_executor(tmp_path / "err")
        os.kill(executor, signal.SIGSTOP)  # long before Python has imported the executor
        assert process.stdout is not None
        assert not select.select([process.stdout], [], [], 6)[0], "ready although no task can run"
        os.kill(executor, signal.SIGCONT)
        assert process.stdout.readline().startswith("ready http://")


def _pid_of_executor(log: Path) -> int:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines(keepends=True):
            if '"command":"executor"' in line and line.endswith("}\n"):
                return json.loads(line)["pid"]
        time.sleep(0.005)
    raise AssertionError("no executor was started")
