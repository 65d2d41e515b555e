"""A database that cannot serve WVS is refused, or waited for, with the reason."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration.http.api_process import ApiProcess, free_port
from tests.integration.postgres.conftest import server_on
from uuid_utils.compat import uuid7

from wvs.engines.volume.opening import init_volume
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate

WAIT_LINE = "waiting_for_database"


def run_wvs(command: str, url: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "wvs.cli.wvs", command],
        env=environment(url, **settings),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def environment(url: str, **settings: str) -> dict[str, str]:
    return {
        **os.environ,
        "WVS_DATABASE_URL": url,
        "WVS_PORT": "0",
        "WVS_EXECUTOR_METRICS_PORT": "0",
        "WVS_LOG_FORMAT": "json",
        **settings,
    }


@contextmanager
def program(command: str, url: str, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs during the block; its log goes to the file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvs", command],
            env=environment(url, **settings),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def get(url: str) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer; (0, {}) while nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


def log_lines(log: Path, event: str) -> list[dict[str, Any]]:
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def volume(tmp_path: Path) -> str:
    init_volume(str(tmp_path / "volume"), uuid7(), "copy")
    return str(tmp_path / "volume")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_without_utf8_is_refused_and_the_hint_makes_one_that_is_accepted(
    admin_url: str, tmp_path: Path, encoding: str
):
    name = f"wvs_fitness_{os.getpid()}_{encoding.lower()}"
    url = admin_url.replace("/postgres?", f"/{name}?")
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"create database {name} encoding '{encoding}' locale 'C' template template0".encode())
        try:
            for command in ("migrate", "api", "executor"):
                ended = run_wvs(command, url, WVS_VOLUME=str(tmp_path))
                assert ended.returncode == 2, ended.stderr
                assert f"DATABASE_ENCODING: the database {name} has the encoding {encoding}" in ended.stderr
            hint = (
                ended.stderr.partition("Make another one with ")[2].partition(";")[0].replace("wvs_utf8", f"{name}_2")
            )
            admin.execute(hint.encode())
            assert run_wvs("migrate", url.replace(name, f"{name}_2")).returncode == 0
        finally:
            admin.execute(f"drop database {name}".encode())
            admin.execute(f"drop database if exists {name}_2".encode())


@pytest.fixture
def standby(data_dir: Path) -> Any:
    """A hot standby with the schema; `promote()` makes it a primary."""
    with server_on(data_dir) as primary:
        asyncio.run(migrate(primary.url()))
    (data_dir / "postgres" / "standby.signal").touch()
    owner = (data_dir / "postgres").stat()
    os.chown(data_dir / "postgres" / "standby.signal", owner.st_uid, owner.st_gid)
    with server_on(data_dir) as server:
        until(lambda: can_connect(server))
        yield server


def can_connect(server: EmbeddedPostgres) -> bool:
    try:
        psycopg.connect(server.url()).close()
    except psycopg.OperationalError:
        return False
    return True


def promote(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("select pg_promote()")


def test_an_api_on_a_standby_is_not_ready_until_the_standby_is_promoted(standby: EmbeddedPostgres, tmp_path: Path):
    api = ApiProcess(standby.url(), tmp_path / "api.log")
    try:
        api.start()
        status, body = get(f"{api.url}/readyz")
        assert status == 503
        assert "standby" in body["reasons"][0]
        assert [line["reason"] for line in log_lines(api.log, "http.not_ready")] == body["reasons"]
        assert get(f"{api.url}/v1/workspaces")[0] == 200
        promote(standby)
        assert get(f"{api.url}/readyz")[0] == 200
        with psycopg.connect(standby.url(), autocommit=True) as connection:
            connection.execute("alter role wvs set default_transaction_read_only = on")
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'wvs-api'"
            )
        until(lambda: "default_transaction_read_only" in str(get(f"{api.url}/readyz")[1]))
    finally:
        api.close()
    refused = run_wvs("migrate", standby.url(), WVS_DATABASE_WAIT_S="0")
    assert "RESET default_transaction_read_only" in refused.stderr
    assert "standby" not in refused.stderr


def test_an_executor_waits_for_a_standby_to_be_promoted_and_a_migration_is_refused(
    standby: EmbeddedPostgres, tmp_path: Path
):
    refused = run_wvs("migrate", standby.url(), WVS_DATABASE_WAIT_S="0")
    assert refused.returncode == 1
    assert "DATABASE_READ_ONLY" in refused.stderr
    assert "Promote the standby" in refused.stderr
    log = tmp_path / "executor.log"
    with program("executor", standby.url(), log, WVS_VOLUME=volume(tmp_path)) as process:
        until(lambda: log_lines(log, WAIT_LINE))
        assert process.poll() is None
        promote(standby)
        until(lambda: log_lines(log, "executor_started"))
        assert len(log_lines(log, WAIT_LINE)) == 1


def test_api_and_executor_wait_for_a_server_that_is_away(data_dir: Path, tmp_path: Path):
    server = server_on(data_dir)
    with server:
        asyncio.run(migrate(server.url()))
        url = server.url()
    port, api_log, executor_log = free_port(), tmp_path / "api.log", tmp_path / "executor.log"
    base, place = f"http://127.0.0.1:{port}", volume(tmp_path)
    with (
        program("api", url, api_log, WVS_PORT=str(port), WVS_VOLUME=place) as api,
        program("executor", url, executor_log, WVS_VOLUME=place) as executor,
    ):
        until(lambda: get(f"{base}/livez")[0] == 200)
        until(lambda: log_lines(executor_log, WAIT_LINE))
        for _ in range(3):
            status, body = get(f"{base}/readyz")
            assert status == 503
            assert "FileNotFoundError" in body["reasons"][0]
            assert get(f"{base}/v1/workspaces")[0] == 503
            assert get(f"{base}/v1/nothing")[0] == 404
            time.sleep(0.7)
        with server:
            until(lambda: get(f"{base}/readyz")[0] == 200)
            until(lambda: log_lines(executor_log, "executor_started"))
            assert api_log.read_text().count("ready http") == 1
            for log in (api_log, executor_log):
                assert [len(log_lines(log, event)) for event in (WAIT_LINE, "database_reached")] == [1, 1]
            for process in (api, executor):
                process.send_signal(signal.SIGTERM)
            assert [process.wait(30) for process in (api, executor)] == [0, 0]


def test_api_and_executor_wait_for_a_free_connection(data_dir: Path, tmp_path: Path):
    with server_on(data_dir, settings={"max_connections": "12", "superuser_reserved_connections": "0"}) as server:
        asyncio.run(migrate(server.url()))
        taken = [psycopg.connect(server.url()) for _ in range(12)]
        api_log, executor_log, place = tmp_path / "api.log", tmp_path / "executor.log", volume(tmp_path)
        with (
            program("api", server.url(), api_log, WVS_VOLUME=place),
            program("executor", server.url(), executor_log, WVS_VOLUME=place, WVS_EXECUTOR_SLOTS="1"),
        ):
            for log in (api_log, executor_log):
                until(lambda log=log: log_lines(log, WAIT_LINE))
                assert "TooManyConnections" in log_lines(log, WAIT_LINE)[0]["reason"]
            for connection in taken:
                connection.close()
            until(lambda: "ready http" in api_log.read_text())
            until(lambda: log_lines(executor_log, "executor_started"))


@pytest.mark.parametrize("command", ["api", "executor", "migrate"])
def test_the_wait_is_bounded_by_its_setting(tmp_path: Path, command: str):
    url, began = f"postgresql://wvs@127.0.0.1:{free_port()}/wvs", time.monotonic()
    ended = run_wvs(command, url, WVS_DATABASE_WAIT_S="2", WVS_VOLUME=volume(tmp_path))
    assert ended.returncode == 1
    assert "Check WVS_DATABASE_URL" in ended.stderr
    assert 2 <= time.monotonic() - began < 20


@pytest.mark.parametrize("command", ["api", "executor"])
def test_a_signal_ends_the_wait_at_once(tmp_path: Path, command: str):
    url, log, port = f"postgresql://wvs@127.0.0.1:{free_port()}/wvs", tmp_path / "log", free_port()
    with program(command, url, log, WVS_VOLUME=volume(tmp_path), WVS_PORT=str(port)) as process:
        until(lambda: log_lines(log, WAIT_LINE))
        until(lambda: command != "api" or get(f"http://127.0.0.1:{port}/livez")[0] == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_a_wrong_password_or_database_is_not_waited_for(data_dir: Path):
    with server_on(data_dir) as server:
        began = time.monotonic()
        ended = run_wvs("api", server.url("nothing"))
    assert ended.returncode == 1
    assert "InvalidCatalogName" in ended.stderr
    assert time.monotonic() - began < 30
