"""Bad settings end `wvs` with 2 and one sentence, and the executor's metrics are for any prober."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.integration.http.api_process import free_port


def wvs(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wvs.cli.wvs", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["up", "api", "executor"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [("WVS_ALLOWED_HOSTS", "*"), ("WVS_ALLOWED_HOSTS", "10.0.0.0/8"), ("WVS_HOST", ".."), ("WVS_VOLUME", "~nobody-x")],
)
def test_a_bad_setting_ends_every_program_with_its_name(command: str, variable: str, value: str) -> None:
    ended = wvs(command, **{variable: value})
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"wvs: {variable}={value!r} is not allowed: it must be ")
    assert ended.stderr.count("\n") == 1


def test_a_data_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    ended = wvs("up", "--data-dir", str(taken), WVS_DATABASE_URL="")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"wvs: WVS_DATA_DIR={taken} is no directory and cannot become one: File exists\n"


@pytest.mark.parametrize("command", ["migrate", "api"])
def test_a_database_that_is_away_is_named_as_such(command: str) -> None:
    url = f"postgresql://wvs@127.0.0.1:{free_port()}/wvs"
    ended = wvs(command, WVS_DATABASE_URL=url, WVS_DATABASE_WAIT_S="0", WVS_PORT="0")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("wvs: the database cannot be reached (ConnectionRefusedError: ")
    assert "Check WVS_DATABASE_URL" in ended.stderr


def test_a_port_that_does_not_exist_is_refused() -> None:
    """The kernel would take its lower 16 bits."""
    assert "65535" in (ended := wvs("api", "--port", "74323")).stdout + ended.stderr
    assert ended.returncode == 2


@pytest.mark.parametrize("head", ["HTTP/1.1\r\nHost: 10.244.0.5:8788\r\nConnection: close\r\n", "HTTP/1.0\r\n"])
def test_the_metrics_of_an_executor_are_answered_whatever_the_host_is(
    head: str, database_url: str, tmp_path: Path
) -> None:
    volume, port = tmp_path / "volume", free_port()
    assert wvs("volume", "init", str(volume), "--engine", "copy").returncode == 0
    environment = {
        **os.environ,
        "WVS_DATABASE_URL": database_url,
        "WVS_VOLUME": str(volume),
        "WVS_EXECUTOR_METRICS_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvs", "executor"], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        answer = ask(port, f"GET /metrics {head}\r\n")
        assert answer.split(" ")[1] == "200"
        assert "wvs_build_info" in answer
    finally:
        process.terminate()
        process.wait(60)


def ask(port: int, request: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(request.encode())
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
