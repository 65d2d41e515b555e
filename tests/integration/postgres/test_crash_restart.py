"""A server process is killed: the server comes back, whatever its other processes do."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.integration.postgres.conftest import server_on
from tests.postgres_state import describe_server

from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.errors import EmbeddedPostgresFailed
from wvs.postgres.leftover import clear_leftover, is_alive, processes_on

KILLS = 10
BUSY = b"select count(*) from generate_series(1, 100000000000)"
SIGKILL_CHILDREN_AFTER_S = 5
"""The constant of that name in PostgreSQL's postmaster.c."""


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    with server_on(data_dir) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("create table kept as select 7 as id")
        yield server


def backend_of(connection: psycopg.Connection) -> int:
    return connection.info.backend_pid


def child(server: EmbeddedPostgres, title: str) -> int:
    """The server process with this title."""
    for pid in processes_on(server.pgdata):
        if title in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(f"no {title}\n{describe_server(server)}")


def kept(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute("select id from kept").fetchone()
    assert row is not None
    return row[0]


def until_it_answers(server: EmbeddedPostgres, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            assert kept(server) == 7
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, describe_server(server)
            time.sleep(0.05)
        else:
            return


def kill_a_backend(server: EmbeddedPostgres) -> None:
    """Returns once the postmaster has seen it: before, the server still answers as if nothing had happened."""
    restarts = server.log_file.read_text().count("terminating any other active server processes")
    connection = psycopg.connect(server.url())
    os.kill(backend_of(connection), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while server.log_file.read_text().count("terminating any other active server processes") == restarts:
        assert time.monotonic() < deadline, describe_server(server)
        time.sleep(0.01)
    connection.close()


def test_a_server_comes_back_by_itself_each_time_a_backend_is_killed(server: EmbeddedPostgres) -> None:
    postmaster = server.pid
    for _ in range(KILLS):
        kill_a_backend(server)
        until_it_answers(server, 20)
    assert server.pid == postmaster


@pytest.mark.parametrize("title", ["checkpointer", "walwriter"])
def test_a_stopped_process_holds_up_the_restart_no_longer_than_postgres_waits_for_it(
    server: EmbeddedPostgres, title: str
) -> None:
    """A stopped process does not answer SIGQUIT. The postmaster sends SIGKILL then, which ends a stopped one, too."""
    stopped = child(server, title)
    os.kill(stopped, signal.SIGSTOP)
    kill_a_backend(server)
    until_it_answers(server, SIGKILL_CHILDREN_AFTER_S + 15)
    assert not is_alive(stopped)
    assert "issuing SIGKILL to recalcitrant children" in server.log_file.read_text()


def stop(server: EmbeddedPostgres, connection: psycopg.Connection) -> None:
    os.kill(backend_of(connection), signal.SIGSTOP)


def compute(server: EmbeddedPostgres, connection: psycopg.Connection) -> None:
    def until_the_server_dies() -> None:
        with pytest.raises(psycopg.OperationalError):
            connection.execute(BUSY)

    threading.Thread(target=until_the_server_dies, daemon=True).start()
    deadline = time.monotonic() + 20
    with psycopg.connect(server.url(), autocommit=True) as other:
        question = "select state from pg_stat_activity where pid = %s"
        while other.execute(question, [backend_of(connection)]).fetchone() != ("active",):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("occupy", [stop, compute])
@pytest.mark.parametrize("stopped_first", [True, False], ids=["stop and start", "start by a new owner"])
def test_a_backend_that_outlives_a_killed_postmaster_does_not_keep_the_next_one_from_starting(
    server: EmbeddedPostgres, occupy: Callable[[EmbeddedPostgres, psycopg.Connection], None], stopped_first: bool
) -> None:
    connection = psycopg.connect(server.url(), autocommit=True)
    survivor = backend_of(connection)
    occupy(server, connection)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    while server.pid is not None:
        time.sleep(0.01)
    assert is_alive(survivor)
    again = server
    if stopped_first:
        server.stop()
        assert not is_alive(survivor)
    else:
        os.close(server._lock or -1)  # as the kernel does for an owner that was killed, too
        server._lock = server._process = None
        again = server_on(server.data_dir)
    again.start()
    try:
        assert not is_alive(survivor)
        until_it_answers(again, 5)
    finally:
        again.stop()
    connection.close()


def test_a_live_server_whose_pid_file_names_another_process_is_left_alone(server: EmbeddedPostgres) -> None:
    """So a server of another PID namespace looks: its number is nobody's here, or another program's."""
    pid_file = server.pgdata / "postmaster.pid"
    recorded = pid_file.read_text()
    with psycopg.connect(server.url()) as client:
        try:
            pid_file.write_text(recorded.replace(recorded.split("\n", 1)[0], "4194000", 1))
            with pytest.raises(EmbeddedPostgresFailed, match=r"postmaster\.pid names another process"):
                clear_leftover(server.pgdata, 2)
        finally:
            pid_file.write_text(recorded)
        assert client.execute("SELECT 1").fetchone() == (1,)
