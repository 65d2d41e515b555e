import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from tests.integration.postgres.conftest import server_on as _server
from tests.skips import not_root

from wvs.postgres import embedded as embedded_module
from wvs.postgres.embedded import SOCKET_PATH_MAX, EmbeddedPostgres
from wvs.postgres.errors import DataDirInUse, EmbeddedPostgresFailed
from wvs.postgres.leftover import clear_leftover, is_alive, postmaster_pid

_IS_ROOT = os.geteuid() == 0
_OWNER = """
import sys, time
from pathlib import Path
from wvs.postgres.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
server.start()
print(server.pid, server.url(), flush=True)
time.sleep(600)
"""


def _query(url: str, question: bytes) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question).fetchone()
        return row[0] if row else None


def _execute(url: str, *statements: bytes) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _wait_until(condition: Any, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def killed_owner(tmp_path: Path) -> Iterator[tuple[Path, int, str]]:
    """A server whose parent was killed with SIGKILL: its data directory, its process id and its URL."""
    data_dir = tmp_path / "killed"
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid_text, url = owner.stdout.readline().split()
    _execute(url.strip(), b"create table kept (id int)", b"insert into kept values (7)")
    owner.kill()
    owner.wait()
    owner.stdout.close()
    yield data_dir, int(pid_text), url
    clear_leftover(data_dir / "postgres", 20)  # by now the number may be another process's


def test_a_new_directory_becomes_a_server_with_the_database_wvs(tmp_path: Path):
    with _server(tmp_path / "a" / "b") as server:
        assert _query(server.url(), b"select current_database() || current_user") == "wvswvs"
        assert _query(server.url(), b"show server_encoding") == "UTF8"
        assert _query(server.url("postgres"), b"show listen_addresses") == ""


def test_a_clean_stop_leaves_no_process_or_socket_and_keeps_the_rows(data_dir: Path):
    server = _server(data_dir)
    server.start()
    pid = server.pid
    _execute(server.url(), b"create table kept (id int)", b"insert into kept values (1)")
    server.stop()
    assert pid is not None
    assert not is_alive(pid)
    assert sorted(path.name for path in data_dir.iterdir()) == ["lock", "postgres", "postgres.log"]
    assert postmaster_pid(data_dir / "postgres") is None
    with _server(data_dir) as again:
        assert _query(again.url(), b"select id from kept") == 1


def test_stop_may_be_repeated_and_a_stopped_server_has_no_url(data_dir: Path):
    server = _server(data_dir)
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert server.pid is None
    with pytest.raises(EmbeddedPostgresFailed, match="not running"):
        server.url()


def test_a_stop_ends_open_sessions(data_dir: Path):
    server = _server(data_dir)
    server.start()
    with psycopg.connect(server.url()) as connection:
        connection.execute("select 1")
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 10
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        connection.close()


def test_a_second_start_on_one_data_directory_is_refused_without_harm(data_dir: Path):
    with _server(data_dir) as first:
        with pytest.raises(DataDirInUse, match=f"process {os.getpid()}; stop that process, or choose another"):
            _server(data_dir).start()
        assert _query(first.url(), b"select 1") == 1


def test_a_second_process_is_refused_too(data_dir: Path):
    with _server(data_dir):
        other = subprocess.run(
            [sys.executable, "-c", _OWNER, str(data_dir)], capture_output=True, text=True, timeout=30, check=False
        )
    assert other.returncode == 1
    assert f"in use by process {os.getpid()}" in other.stderr


def test_a_server_whose_owner_was_killed_is_replaced_with_its_rows(killed_owner: tuple[Path, int, str]):
    data_dir, orphan, _ = killed_owner
    assert is_alive(orphan)
    with EmbeddedPostgres(data_dir, durable=False) as server:
        assert not is_alive(orphan)
        assert server.pid != orphan
        assert _query(server.url(), b"select id from kept") == 7


def test_a_cluster_recovers_from_the_wal_after_its_postmaster_was_killed(data_dir: Path):
    server = _server(data_dir)
    server.start()
    _execute(server.url(), b"create table kept (id int)", b"insert into kept values (9)")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    _wait_until(lambda: server.pid is None)
    server.stop()
    assert postmaster_pid(data_dir / "postgres") is not None
    with _server(data_dir) as again:
        assert _query(again.url(), b"select id from kept") == 9


def test_the_server_starts_although_another_program_has_the_pid_in_the_pid_file(data_dir: Path):
    stale = data_dir / "postgres" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{data_dir / 'postgres'}\n1\n5432\n/tmp\n\n0 0\nready\n")
    with _server(data_dir) as server:
        assert _query(server.url(), b"select 1") == 1


def test_a_half_made_cluster_is_replaced(tmp_path: Path):
    half = tmp_path / "data" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with _server(tmp_path / "data") as server:
        assert _query(server.url(), b"select 1") == 1
    assert not half.exists()


def test_a_path_too_long_for_a_socket_works_and_leaves_nothing_in_tmp(made_once: Path, tmp_path: Path):
    data_dir = tmp_path / ("d" * 200)
    assert len(str(data_dir / "run")) > SOCKET_PATH_MAX
    subprocess.run(["cp", "-a", str(made_once), str(data_dir)], check=True)
    with _server(data_dir) as server:
        sockets = Path(str(_query(server.url(), b"show unix_socket_directories")).strip('"'))
        assert _query(server.url(), b"select 1") == 1
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not sockets.exists()
    assert data_dir not in sockets.parents


@pytest.mark.parametrize("name", ["with space %20", 'quo"te', "com,ma", "ünïcode", "a=b&c?d#e"])
def test_a_directory_may_have_any_name(made_once: Path, tmp_path: Path, name: str):
    data_dir = tmp_path / name
    subprocess.run(["cp", "-a", str(made_once), str(data_dir)], check=True)
    with _server(data_dir) as server:
        assert _query(server.url(), b"select 1") == 1
        assert asyncio.run(_query_with_asyncpg(server.url())) == 1


async def _query_with_asyncpg(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("select 1")
    finally:
        await connection.close()


def test_an_error_quotes_the_server_about_a_bad_setting_and_frees_the_directory(data_dir: Path):
    with pytest.raises(EmbeddedPostgresFailed, match='invalid value for parameter "shared_buffers"'):
        _server(data_dir, settings={"shared_buffers": "plenty"}).start()
    with _server(data_dir) as server:
        assert _query(server.url(), b"select 1") == 1


def test_a_cluster_of_another_major_version_is_refused(data_dir: Path):
    (data_dir / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedPostgresFailed, match=r"PostgreSQL 12 created .* pg_upgrade"):
        _server(data_dir).start()


def test_an_error_quotes_a_failing_initdb(tmp_path: Path):
    binaries = tmp_path / "bin"
    binaries.mkdir(mode=0o755)
    (binaries / "initdb").write_text("#!/bin/sh\necho no room for a cluster >&2\nexit 1\n")
    (binaries / "initdb").chmod(0o755)
    with pytest.raises(EmbeddedPostgresFailed, match="initdb failed: no room for a cluster"):
        EmbeddedPostgres(tmp_path / "data", binaries=binaries).start()
    assert not (tmp_path / "data" / "postgres").exists()


def test_the_server_is_durable_by_default(data_dir: Path):
    with EmbeddedPostgres(data_dir, binaries=_server(data_dir)._binaries) as durable:
        names = (b"fsync", b"full_page_writes", b"synchronous_commit")
        answers = [_query(durable.url(), b"show " + name) for name in names]
    assert answers == ["on", "on", "on"]
    with _server(data_dir) as fast:
        assert _query(fast.url(), b"show fsync") == "off"


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(data_dir: Path):
    with _server(data_dir) as server:
        assert server.pid is not None
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert os.getsid(server.pid) != os.getsid(0)


def test_the_next_start_rotates_a_large_log(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded_module, "LOG_ROTATE_BYTES", 10)
    (data_dir / "postgres.log").write_text("an old line that is long enough\n")
    with _server(data_dir):
        pass
    assert "an old line" in (data_dir / "postgres.log.1").read_text()
    assert "an old line" not in (data_dir / "postgres.log").read_text()


def test_postgres_variables_of_the_operator_have_no_effect(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "PGOPTIONS": "-c nonsense=1", "LC_ALL": "xx_XX"}.items():
        monkeypatch.setenv(name, value)
    with _server(data_dir) as server:
        monkeypatch.delenv("PGOPTIONS")  # clients honour it, and this test is one
        assert _query(server.url(), b"select 1") == 1
        assert asyncio.run(_query_with_asyncpg(server.url())) == 1


def test_a_missing_wheel_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded_module.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedPostgresFailed, match="WVS_DATABASE_URL"):
        EmbeddedPostgres(tmp_path)


def _status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(not _IS_ROOT, reason=not_root("dropping root"))
class TestAsRoot:
    def test_the_server_runs_as_another_user_and_without_capabilities_if_it_needs_none(self, made_once: Path):
        data_dir = Path(f"/tmp/wvs-open-{os.getpid()}")
        subprocess.run(["cp", "-a", str(made_once), str(data_dir)], check=True)
        data_dir.chmod(0o755)
        try:
            with _server(data_dir) as server:
                assert server.pid is not None
                status = _status_of(server.pid)
        finally:
            shutil.rmtree(data_dir)
        uid = (made_once / "postgres").stat().st_uid
        assert uid != 0
        assert status["Uid"].split() == [str(uid)] * 4
        assert status["Groups"].split() == status["Gid"].split()[:1]
        if _world_may_enter(Path(sys.prefix).resolve()):
            assert int(status["CapPrm"], 16) == int(status["CapAmb"], 16) == 0

    def test_below_a_private_directory_the_server_may_only_search(self, data_dir: Path, tmp_path: Path):
        tmp_path.chmod(0o700)
        with _server(data_dir) as server:
            assert server.pid is not None
            capabilities = int(_status_of(server.pid)["CapPrm"], 16)
            assert _query(server.url(), b"select 1") == 1
        assert capabilities in {1 << 1, 1 << 2}
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700

    def test_binaries_below_a_private_directory_are_found(self, tmp_path: Path):
        tmp_path.chmod(0o700)
        (tmp_path / "bin").symlink_to(_server(tmp_path)._binaries, target_is_directory=True)
        with EmbeddedPostgres(tmp_path / "data", durable=False, binaries=tmp_path / "bin") as server:
            assert _query(server.url(), b"select 1") == 1
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700

    def test_another_user_cannot_connect_even_if_the_socket_is_reachable(self, data_dir: Path):
        socket_parent = data_dir / "run"
        with _server(data_dir) as server:
            below_tmp = [path for path in data_dir.parents if Path(tempfile.gettempdir()) in path.parents]
            for path in (data_dir, socket_parent, *below_tmp):
                path.chmod(path.stat().st_mode | 0o055)
            stranger = pwd.getpwnam("daemon")
            code = "import os, sys, psycopg\nos.setuid(int(sys.argv[1]))\npsycopg.connect(sys.argv[2])"
            done = subprocess.run(
                [sys.executable, "-c", code, str(stranger.pw_uid), server.url()],
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert "Peer authentication failed" in done.stderr


def _world_may_enter(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (path, *path.parents))
