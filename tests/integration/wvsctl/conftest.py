import itertools
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.conftest import with_database
from tests.integration.wvsctl.consoles import Wvsctl, serving

_numbers = itertools.count()


@pytest.fixture(scope="session")
def wvsctl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wvsctl]:
    """The console of a `wvs up` with its own database."""
    directory = tmp_path_factory.mktemp("up")
    directory.chmod(0o755)
    environment = {"WVS_EXECUTOR_METRICS_PORT": "0"}
    arguments = ("--data-dir", str(directory / "data"), "--port", "0", "--engine", "copy")
    with serving("up", *arguments, environment=environment, log=directory / "log") as url:
        yield Wvsctl(url)


@pytest.fixture(scope="session")
def idle_database_url(admin_url: str, template_database: str) -> Iterator[str]:
    """A migrated database for the whole run."""
    database = f"{template_database}_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(SQL("create database {} template {}").format(Identifier(database), Identifier(template_database)))
        yield with_database(admin_url, database)
        admin.execute(SQL("drop database {} with (force)").format(Identifier(database)))


@pytest.fixture(scope="session")
def idle_environment(idle_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of a service with a volume and a database, for an API or an executor."""
    volume = tmp_path_factory.mktemp("volume")
    subprocess.run([sys.executable, "-m", "wvs.cli.wvs", "volume", "init", str(volume), "--engine", "copy"], check=True)
    return {"WVS_DATABASE_URL": idle_database_url, "WVS_VOLUME": str(volume), "WVS_EXECUTOR_METRICS_PORT": "0"}


@pytest.fixture(scope="session")
def idle(idle_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wvsctl]:
    """The console of an API without an executor: every task stays queued until a test starts one."""
    log = tmp_path_factory.mktemp("api") / "log"
    with serving("api", "--port", "0", environment=idle_environment, log=log) as url:
        yield Wvsctl(url)


@pytest.fixture
def name() -> Callable[[], str]:
    """Generates names that no other test uses."""
    return lambda: f"w{next(_numbers)}"


@pytest.fixture
def queued(idle: Wvsctl, name: Callable[[], str]) -> tuple[str, str]:
    """A workspace that no executor initializes, and its task."""
    given = name()
    document = idle.json("workspace", "create", given, "--no-wait")
    return given, document["task"]["id"]


@pytest.fixture
def workspace(wvsctl: Wvsctl, name: Callable[[], str]) -> str:
    """The name of a new active workspace."""
    given = name()
    wvsctl.ok("workspace", "create", given)
    return given


@pytest.fixture
def live(wvsctl: Wvsctl, workspace: str) -> Path:
    """Its live tree."""
    return Path(wvsctl.ok("workspace", "path", workspace).out.strip())


@pytest.fixture
def snapshot(wvsctl: Wvsctl, workspace: str, live: Path) -> str:
    """A ready snapshot of it, with one file."""
    (live / "a").write_text("first")
    return wvsctl.json("snapshot", "create", workspace, "-m", "first", "--label", "step=1")["snapshot"]["id"]
