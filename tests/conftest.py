"""One PostgreSQL for the whole run, one migrated template in it, one clone of the template per test.

The first test that needs the server starts it, in whichever xdist worker. No worker owns it: a guard process, which
only waits until the pytest that began the run has ended in any way, stops the server and removes its files.

WVS_TEST_DATABASE_URL   use this server instead; the role must be allowed to create databases
WVS_TEST_POSTGRES_BIN   start the server with these binaries instead of the embedded ones
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

import wvs
from tests import postgres_state, skip_policy
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import Pool, create_pool

_RUN_DIR = "WVS_TEST_RUN_DIR"
_GUARD = """
import shutil, sys
from pathlib import Path
from wvs.postgres.leftover import clear_leftover
run_dir = Path(sys.argv[1])
sys.stdin.read()
clear_leftover(run_dir / "server" / "postgres", 20)
shutil.rmtree(run_dir, ignore_errors=True)
"""
_GUARD_KEY = pytest.StashKey[subprocess.Popen[bytes]]()
_keep_alive: list[object] = []


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(skip_policy.SkipPolicy.of_this_run(), "skip-policy")
    if hasattr(config, "workerinput"):
        return
    run_dir = Path(tempfile.mkdtemp(prefix="wvs-test-"))
    run_dir.chmod(0o755)
    os.environ[_RUN_DIR] = str(run_dir)
    guard = subprocess.Popen(
        [sys.executable, "-c", _GUARD, str(run_dir)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(wvs.__file__).parents[1])},
    )
    config.stash[_GUARD_KEY] = guard


def pytest_unconfigure(config: pytest.Config) -> None:
    guard = config.stash.get(_GUARD_KEY, None)
    if guard is None:
        return
    _drop_databases_of_this_run()
    guard.communicate(timeout=60)


def _run_dir() -> Path:
    return Path(os.environ[_RUN_DIR])


def _prefix() -> str:
    return f"{_run_dir().name.replace('-', '_').lower()}_"


def _drop_databases_of_this_run() -> None:
    """Drops the databases on a server that the run did not start; a server of the run is removed as a whole."""
    url = os.environ.get("WVS_TEST_DATABASE_URL")
    if not url:
        return
    with psycopg.connect(url, autocommit=True) as admin:
        rows = admin.execute("select datname from pg_database where starts_with(datname, %s)", [_prefix()]).fetchall()
        for (name,) in rows:
            _execute(admin, f'drop database "{name}" with (force)')


def _execute(connection: psycopg.Connection, statement: str) -> None:
    connection.execute(statement.encode())  # bytes: psycopg's types take only literals as text


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with (_run_dir() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start_server() -> str:
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    server = EmbeddedPostgres(
        _run_dir() / "server",
        durable=False,
        binaries=Path(binaries) if binaries else None,
        settings={"max_connections": "300"},
    )
    server.start()
    _keep_alive.append(server)
    return server.url("postgres")


@pytest.fixture(scope="session", autouse=True)
def signals_have_their_default_action() -> None:
    """For what tests start, even if the run itself ignores some: below nohup, or in the background of a script.

    A handler ends with exec, an ignored signal stays ignored. This process goes on to ignore them in effect.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed with a server of its own, or because the server of the run did not answer, shows its state."""
    report = yield
    if report.failed:
        states = [postgres_state.describe_server(server) for server in postgres_state.servers_of(item)]
        if postgres_state.is_lost_server(str(call.excinfo)) and (_run_dir() / "server").is_dir():
            states.append(postgres_state.describe(_run_dir() / "server"))
        report.sections += [("PostgreSQL", state) for state in states]
    return report


def with_database(url: str, name: str) -> str:
    """`url` with another database name."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@pytest.fixture(scope="session")
def admin_url() -> str:
    """The URL of a role that may create databases, on the server of this run."""
    with _one_at_a_time():
        known = _run_dir() / "url"
        if not known.exists():
            known.write_text(os.environ.get("WVS_TEST_DATABASE_URL") or _start_server())
        return known.read_text()


@pytest.fixture(scope="session")
def template_database(admin_url: str) -> str:
    """The name of a database with the schema of this program and no rows."""
    name = f"{_prefix()}template"
    with _one_at_a_time():
        done = _run_dir() / "template"
        if not done.exists():
            with psycopg.connect(admin_url, autocommit=True) as admin:
                options = "template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'"
                _execute(admin, f'create database "{name}" {options}')
            with ThreadPoolExecutor(1) as thread:  # away from any event loop of pytest-asyncio
                thread.submit(asyncio.run, migrate(with_database(admin_url, name))).result()
            done.touch()
    return name


@contextmanager
def private_database(admin_url: str, template: str) -> Iterator[str]:
    """A database for this block only, created from `template`."""
    name = f"{_prefix()}{uuid.uuid4().hex[:12]}"
    with psycopg.connect(admin_url, autocommit=True) as admin:
        _execute(admin, f'create database "{name}" template "{template}"')
        try:
            yield with_database(admin_url, name)
        finally:
            _execute(admin, f'drop database "{name}" with (force)')


@pytest.fixture
def database_url(admin_url: str, template_database: str) -> Iterator[str]:
    """A migrated database for this test only."""
    with private_database(admin_url, template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(admin_url: str) -> Iterator[str]:
    """A database for this test only, without any schema."""
    with private_database(admin_url, "template0") as url:
        yield url


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """A pool on `database_url`."""
    pool = await create_pool(database_url, application_name="wvs test", size=10)
    try:
        yield pool
    finally:
        await pool.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests recorded with `record_property("summary", …)`; xdist does not pass on what they print."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "summary":
                terminalreporter.write_line(str(value))
