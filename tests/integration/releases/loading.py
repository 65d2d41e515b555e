"""Loads the fixture of a release into a database and a volume of a test's own."""

import contextlib
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
from msgspec import Struct
from tests.conftest import private_database
from tests.integration.wvsctl.consoles import Wvsctl, serving
from tools.release_fixture.layout import DATABASE, EXPECTED, EXPORT, VOLUME, Expected, adopt, holds_attributes, unpack

_LINK = r"\$VOLUME/ws_[0-9a-z]+/current"
RELEASES = Path(__file__).parents[2] / "releases"


def released() -> list[Path]:
    """The fixture of every release."""
    return sorted(path for path in RELEASES.iterdir() if path.is_dir())


class Loaded(Struct):
    """A loaded fixture that was migrated to the schema of this program, and whose volume has its layout."""

    expected: Expected
    database_url: str
    volume: Path
    export: Path
    newly_applied: list[str]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "WVS_DATABASE_URL": self.database_url,
            "WVS_VOLUME": str(self.volume),
            "WVS_EXECUTOR_METRICS_PORT": "0",
            "WVS_POLL_S": "0.2",
            "WVS_FREEZE_BUDGET_S": "4",
        }

    @property
    def trees(self) -> dict[str, dict[str, str]]:
        """The recorded trees where they are now; without user attributes where this file system cannot hold any."""
        holds = holds_attributes(self.volume)
        return {
            self._place(root): tree if holds else {name: line.partition(" user.")[0] for name, line in tree.items()}
            for root, tree in self.expected.trees.items()
        }

    def _place(self, root: str) -> str:
        """A live tree is at its one path since layout 2; a release of layout 1 recorded it below `trees`."""
        home, _, tree = root.removesuffix("/root").partition("/trees/")
        name = self.volume / home / "live" / "name"
        return f"{home}/live/root" if name.exists() and name.read_text().strip() == tree else root

    def wvs(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wvs.cli.wvs", *arguments]
        environment = {**os.environ, **self.environment, **settings}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)

    def execute(self, statement: str) -> list[Any]:
        """Runs one statement; returns its rows."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def here(self, answer: Any) -> Any:
        """A recorded answer with this volume's directory in it."""
        if isinstance(answer, dict):
            return {name: self.here(value) for name, value in answer.items()}
        if isinstance(answer, list):
            return [self.here(value) for value in answer]
        if not isinstance(answer, str):
            return answer
        # The path of a workspace was the link to its live tree; since layout 2 it is the live tree's one path.
        path = f"{answer.removesuffix('/current')}/live/root" if re.fullmatch(_LINK, answer) else answer
        return path.replace("$VOLUME", str(self.volume))


class Served(Struct):
    """A loaded fixture behind an API of this program."""

    loaded: Loaded
    wvsctl: Wvsctl
    client: httpx.Client


@contextlib.contextmanager
def loaded_fixture(release: Path, admin_url: str, directory: Path, *, upgraded: bool = True) -> Iterator[Loaded]:
    """The fixture in a new database, which is dropped at the end of the block, and in `directory`."""
    export = directory / "audit.jsonl"
    export.write_bytes(gzip.decompress((release / EXPORT).read_bytes()))
    volume = Path(os.path.realpath(directory)) / "volume"
    unpack(release / VOLUME, volume)
    adopt(volume)
    expected = msgspec.json.decode((release / EXPECTED).read_bytes(), type=Expected)
    with private_database(admin_url, "template0") as url:
        loaded = Loaded(expected, url, volume, export, [])
        loaded.execute(gzip.decompress((release / DATABASE).read_bytes()).decode())
        before = applied(loaded)
        migrated = loaded.wvs("migrate")
        assert migrated.returncode == 0, migrated.stderr
        loaded.newly_applied = [version for version in applied(loaded) if version not in before]
        if upgraded:
            brought = loaded.wvs("volume", "upgrade")
            assert brought.returncode == 0, brought.stdout + brought.stderr
        yield loaded


@contextlib.contextmanager
def served_fixture(loaded: Loaded, directory: Path) -> Iterator[Served]:
    """An API on the fixture; no executor runs."""
    with (
        serving("api", "--port", "0", environment=loaded.environment, log=directory / "api.log") as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield Served(loaded, Wvsctl(url), client)


def applied(loaded: Loaded) -> list[str]:
    """The applied migrations, in order."""
    return [version for (version,) in loaded.execute("SELECT version FROM wvs.schema_migrations ORDER BY 1")]


def differences(recorded: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where an answer lacks something that was recorded, or has another value. New fields are no difference."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        for name, value in recorded.items():
            if name in now:
                yield from differences(value, now[name], f"{place}.{name}")
            else:
                yield f"{place}.{name} is missing"
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        for number, (value, other) in enumerate(zip(recorded, now, strict=True)):
            yield from differences(value, other, f"{place}[{number}]")
    elif recorded != now:
        yield f"{place}: {recorded!r} was recorded, and now it is {now!r}"
