"""Servers of a test's own, on copies of one cluster."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from tests.integration.http.api_process import free_port

from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate


def server_on(data_dir: Path, **more: Any) -> EmbeddedPostgres:
    """A server, not started yet, with the binaries of this run."""
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    return EmbeddedPostgres(data_dir, durable=False, binaries=Path(binaries) if binaries else None, **more)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose cluster is made and stopped: making one takes longest."""
    data_dir = tmp_path_factory.mktemp("made")
    with server_on(data_dir):
        pass
    return data_dir


@pytest.fixture
def data_dir(made_once: Path, tmp_path: Path) -> Path:
    target = tmp_path / "data"
    subprocess.run(["cp", "-a", str(made_once), str(target)], check=True)
    return target


class TcpServer:
    """A server with a migrated database that is reached by TCP, over IPv4 and IPv6, by a role with a password."""

    PASSWORD = "p@ss/w#rd%? :&+é"
    ENCODED = quote(PASSWORD, safe="")

    def __init__(self, data_dir: Path) -> None:
        self.port = free_port()
        listening = {"listen_addresses": "127.0.0.1,::1", "port": str(self.port)}
        self.server = server_on(data_dir, settings=listening)

    def url(self, host: str = "127.0.0.1", database: str = "wvs", query: str = "") -> str:
        """The URL of the role with a password."""
        return f"postgresql://we%20ird:{self.ENCODED}@{host}:{self.port}/{database}?{query}"

    def execute(self, *statements: str, database: str = "wvs") -> None:
        """Runs each statement as the superuser."""
        with psycopg.connect(self.server.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def allow(self, *rules: str) -> None:
        """Puts rules in front of those in pg_hba.conf."""
        file = self.server.pgdata / "pg_hba.conf"
        file.write_text("\n".join([*rules, file.read_text()]))
        self.execute("select pg_reload_conf()")


@pytest.fixture(scope="module")
def tcp_server(made_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpServer]:
    """One for the tests of a module."""
    directory = tmp_path_factory.mktemp("tcp") / "data"
    subprocess.run(["cp", "-a", str(made_once), str(directory)], check=True)
    made = TcpServer(directory)
    with made.server:
        made.execute(f"create role \"we ird\" login superuser password '{made.PASSWORD}'")
        made.allow("host all all 127.0.0.1/32 scram-sha-256", "host all all ::1/128 scram-sha-256")
        with ThreadPoolExecutor(1) as thread:  # away from any event loop of pytest-asyncio
            thread.submit(asyncio.run, migrate(made.server.url())).result()
        yield made
