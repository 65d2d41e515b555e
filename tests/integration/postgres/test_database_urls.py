"""URLs that libpq takes lead both drivers to the server: asyncpg and, for a migration, dbmate."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from tests.integration.http.api_process import free_port
from tests.integration.postgres.conftest import TcpServer
from tests.skips import need_program

from wvs.postgres.migrate import migrate
from wvs.postgres.pool import acquire, close, connect, create_pool
from wvs.signals.hints import EVENTS, Listener


@pytest.fixture(scope="module")
def certificate(tcp_server: TcpServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's certificate, after which it takes TLS."""
    openssl = need_program("openssl")
    directory = tmp_path_factory.mktemp("tls")
    key, made = directory / "key", directory / "crt"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-addext", names, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True
    )
    owner = tcp_server.server.pgdata.stat()
    for path, name in ((key, "server.key"), (made, "server.crt")):
        target = tcp_server.server.pgdata / name
        target.write_bytes(path.read_bytes())
        target.chmod(0o600)
        subprocess.run(["chown", f"{owner.st_uid}:{owner.st_gid}", str(target)], check=True)
    try:
        tcp_server.execute("alter system set ssl = on", "select pg_reload_conf()")
    except psycopg.errors.InvalidParameterValue:
        pytest.skip("the server of this run is built without TLS")
    tcp_server.execute("create role tls login superuser password 'x'")
    for address in ("127.0.0.1/32", "::1/128"):
        tcp_server.allow(f"hostssl all tls {address} scram-sha-256", f"host all tls {address} reject")
    return made


@pytest.fixture
def database(tcp_server: TcpServer) -> Iterator[str]:
    """An empty database."""
    tcp_server.execute("create database fresh template template0 encoding 'UTF8'")
    yield "fresh"
    tcp_server.execute("drop database fresh with (force)")


async def reaches(url: str, directory: Path) -> bool:
    """Whether a migration and a pool reach the server; libpq has to reach it, too."""
    psycopg.connect(url, connect_timeout=5).close()
    (directory / "1_one.sql").write_text("-- migrate:up\ncreate table public.reached (id int);\n-- migrate:down\n")
    applied = await migrate(url, directory=directory)
    pool = await create_pool(url, application_name="wvs test", size=1)
    try:
        await pool.fetch("select id from public.reached")
    finally:
        await close(pool)
    return applied == ["1_one.sql"]


@pytest.mark.parametrize(
    ("host", "query"),
    [
        ("127.0.0.1", ""),
        ("[::1]", ""),
        ("127.0.0.1", "connect_timeout=10"),
        ("127.0.0.1", "keepalives=1&keepalives_idle=30&keepalives_interval=3&keepalives_count=3&tcp_user_timeout=9000"),
        ("127.0.0.1", "options=-c%20statement_timeout%3D0"),
        ("127.0.0.1", "application_name=x"),
        ("127.0.0.1", "target_session_attrs=read-write"),
        ("127.0.0.1", "channel_binding=prefer&gssencmode=prefer&client_encoding=UTF8"),
    ],
)
async def test_a_url_that_libpq_takes_is_taken(
    tcp_server: TcpServer, database: str, tmp_path: Path, host: str, query: str
):
    assert await reaches(tcp_server.url(host, database, query), tmp_path)


async def test_a_socket_directory_in_the_place_of_the_host_is_taken_with_its_port(
    tcp_server: TcpServer, database: str, tmp_path: Path
):
    directory = quote(str(tcp_server.server.data_dir / "run"), safe="")
    assert await reaches(f"postgresql://wvs@{directory}:{tcp_server.port}/{database}", tmp_path)


@pytest.mark.parametrize(
    "query", ["sslmode=require", "sslmode=require&channel_binding=require", "sslmode=verify-full&sslrootcert={}"]
)
async def test_an_encrypted_connection_is_made(
    tcp_server: TcpServer, certificate: Path, database: str, tmp_path: Path, query: str
):
    url = f"postgresql://tls:x@localhost:{tcp_server.port}/{database}?{query.format(certificate)}"
    assert await reaches(url, tmp_path)


async def test_of_several_hosts_the_first_that_answers_is_used_although_one_is_silent(
    tcp_server: TcpServer, database: str, tmp_path: Path
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{free_port()},127.0.0.1"
        query = "connect_timeout=2&target_session_attrs=read-write"
        assert await reaches(tcp_server.url(hosts, database, query), tmp_path)


async def test_a_connection_says_the_application_of_the_url_and_keeps_its_options(tcp_server: TcpServer):
    url = tcp_server.url(query="application_name=blue&options=-c%20statement_timeout%3D7s")
    pool = await create_pool(url, application_name="wvs-api", size=1)
    try:
        async with acquire(pool) as connection:
            assert await connection.fetchval("show application_name") == "wvs-api blue"
            assert await connection.fetchval("show statement_timeout") == "7s"
            assert await connection.fetchval("show lock_timeout") == "0"
    finally:
        await close(pool)


async def test_limits_of_the_role_do_not_end_our_connections(tcp_server: TcpServer):
    limits = {
        "statement_timeout": "200ms",
        "idle_session_timeout": "200ms",
        "transaction_timeout": "200ms",
        "idle_in_transaction_session_timeout": "200ms",
        "lock_timeout": "1ms",
    }
    with psycopg.connect(tcp_server.server.url()) as asked:
        limits = {
            name: value
            for name, value in limits.items()
            if asked.execute("select from pg_settings where name = %s", [name]).rowcount
        }
    tcp_server.execute(*(f"alter role \"we ird\" set {name} = '{value}'" for name, value in limits.items()))
    try:
        connection = await connect(tcp_server.url(), application_name="wvs test", command_timeout_s=None)
        async with connection.transaction():
            await connection.execute("select pg_sleep(0.5)")
        lost: list[int] = []
        async with Listener(tcp_server.url(), {EVENTS: lambda: None}, lambda: lost.append(1)).running():
            await asyncio.sleep(1.5)
        assert lost == []
        assert {name: await connection.fetchval(f"show {name}") for name in limits} == {
            **dict.fromkeys(limits, "0"),
            "idle_in_transaction_session_timeout": "10s",
        }
        await close(connection)
    finally:
        tcp_server.execute('alter role "we ird" reset all')


@pytest.mark.parametrize(
    ("login", "said"),
    [("we%20ird:p@ss/w#rd%? :&+é", "%40"), ("we%20ird:wr%40ng-secret", "password authentication failed")],
)
def test_a_url_that_does_not_work_is_explained_without_its_password(tcp_server: TcpServer, login: str, said: str):
    ended = subprocess.run(
        [sys.executable, "-m", "wvs.cli.wvs", "migrate"],
        env={"WVS_DATABASE_URL": f"postgresql://{login}@127.0.0.1:{tcp_server.port}/wvs"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert said in ended.stderr
    assert not any(piece in ended.stdout + ended.stderr for piece in ("ss/w", "rd%", "wr@ng", "wr%40ng", "secret"))
