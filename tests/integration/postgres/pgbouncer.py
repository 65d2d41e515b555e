"""A real PgBouncer in front of a server of the tests."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.http.api_process import free_port
from tests.skips import need_program

from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.server_user import server_user


@contextmanager
def pgbouncer(server: EmbeddedPostgres, directory: Path, port: int = 0, **settings: str) -> Iterator[str]:
    """The URL of a pooler with these settings, for the block only. It reaches the server by its socket."""
    program = need_program("pgbouncer")
    user = server_user(server.pgdata)
    port = port or free_port()
    directory.mkdir()
    (directory / "users").write_text('"wvs" ""\n')
    values = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": str(directory / "users"),
        **settings,
    }
    socket_dir, server_port = server.url().partition("?host=")[2].replace("%2F", "/").split("&port=")
    lines = ["[databases]", f"* = host={socket_dir} port={server_port} user=wvs", "[pgbouncer]"]
    config = directory / "pgbouncer.ini"
    config.write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in values.items())]) + "\n")
    for path in (directory, *directory.iterdir()):
        user.own(path)
    command = user.command([program, "-q", str(config)], [directory])
    with (directory.parent / f"{directory.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", env={**os.environ, "TZ": "UTC"})
    try:
        _wait_until_it_listens(process, port)
        yield f"postgresql://wvs@127.0.0.1:{port}/wvs"
    finally:
        process.kill()
        process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None, "pgbouncer ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
