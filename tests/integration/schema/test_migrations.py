"""Each migration can be rolled back, and new ones are made from `db/functions`."""

import asyncio
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tools.schema.dump import dump_schema, routines
from tools.schema.functions import faults_of_files, texts_in_files
from tools.schema.migrations import Refusal, new_migration
from tools.schema.writing import DATABASE_FILES

from wvs.postgres.database_url import dbmate_url, parse_url
from wvs.postgres.migrate import MIGRATIONS_TABLE, dbmate_program, migrate

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of `db`."""
    shutil.copytree(DATABASE_FILES, tmp_path / "db")
    return tmp_path / "db"


def _rollback(url: str, migrations: Path) -> None:
    command = [str(dbmate_program()), "--env-file", os.devnull, "--no-dump-schema", "--migrations-dir", str(migrations)]
    command += ["--migrations-table", MIGRATIONS_TABLE, "rollback"]
    target = parse_url(url)
    (host,) = target.hosts
    assert host.name is not None
    environment = {
        "DATABASE_URL": dbmate_url(target, host.name, host.port or 5432),
        "PGPASSWORD": target.password or "",
    }
    subprocess.run(command, check=True, capture_output=True, env=environment)


def _dump(url: str) -> str:
    """Schema and functions, without comments: the rollback of one landed migration does not restore a comment."""
    with psycopg.connect(url) as connection:
        text = dump_schema(connection) + "\n".join(routine.definition for routine in routines(connection))
    return re.sub(r"^ *--.*\n", "", text, flags=re.MULTILINE)


def test_every_migration_can_be_rolled_back(empty_database_url: str, files: Path, tmp_path: Path):
    """Except the first, which creates the schema with dbmate's own table."""
    some = tmp_path / "some"
    some.mkdir()
    seen: list[tuple[Path, str]] = []
    for path in sorted((files / "migrations").glob("*.sql")):
        shutil.copy(path, some)
        asyncio.run(migrate(empty_database_url, directory=some))
        seen.append((some / path.name, _dump(empty_database_url)))
    for (path, _), (_, before) in zip(reversed(seen[1:]), reversed(seen[:-1]), strict=True):
        _rollback(empty_database_url, some)
        assert _dump(empty_database_url) == before, path.name
        path.unlink()


def _edit(files: Path, name: str, old: str, new: str) -> None:
    path = files / "functions" / f"{name}.sql"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_new_migration_contains_the_present_functions_and_can_be_rolled_back(
    migrated: psycopg.Connection[Any], database_url: str, files: Path
):
    before = _dump(database_url)
    _edit(files, "claim_task", "interval '100 ms'", "interval '101 ms'")
    (files / "functions" / "planted.sql").write_text(
        "-- One.\nCREATE OR REPLACE FUNCTION wvs.planted(p_one integer) RETURNS integer LANGUAGE sql AS $$SELECT 1$$;\n"
    )
    last = max(path.name for path in (files / "migrations").glob("*.sql"))
    path = new_migration(migrated, files, "be_patient", ["claim_task", "planted"], NOW)
    migrated.rollback()
    assert path.name > last
    assert path.name.startswith(last[:8]), "a slow clock must not number it before the last one"
    assert "functions/" not in path.read_text()

    assert asyncio.run(migrate(database_url, directory=files / "migrations")) == [path.name]
    assert faults_of_files(migrated, texts_in_files(files / "functions")) == []
    migrated.rollback()
    _rollback(database_url, files / "migrations")
    assert _dump(database_url) == before


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("read_models()", "read_models(p_one integer)", "read_models_v2"),
        ("text[]", "varchar[]", "read_models_v2"),
        ("SELECT", "SELECT", "is what the migrations make already"),
        ("FUNCTION wvs.read_models", "FUNCTION wvs.other", "has to define wvs.read_models"),
        ("SELECT", "SELCT", "cannot be loaded"),
    ],
)
def test_a_migration_that_would_break_the_previous_release_is_refused(
    migrated: psycopg.Connection[Any], files: Path, old: str, new: str, why: str
):
    _edit(files, "read_models", old, new)
    there = sorted((files / "migrations").iterdir())
    with pytest.raises(Refusal, match=why):
        new_migration(migrated, files, "planted", ["read_models"], NOW)
    assert sorted((files / "migrations").iterdir()) == there


@pytest.mark.parametrize(
    ("name", "function"), [("Planted", "claim_task"), ("a/b", "claim_task"), ("planted", "nosuch")]
)
def test_invalid_and_unknown_names_are_refused(
    migrated: psycopg.Connection[Any], files: Path, name: str, function: str
):
    with pytest.raises(Refusal, match=r"cannot be the name|does not exist"):
        new_migration(migrated, files, name, [function], NOW)
