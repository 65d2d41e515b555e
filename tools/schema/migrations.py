"""`make migration`: writes a migration that brings functions to their present text in `db/functions`.

A migration contains the whole text and never refers to a file: once it has landed it must do the same for ever, while
the files in `db/functions` keep changing.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from msgspec import Struct

from tools.schema.dump import Routine, routines
from tools.schema.functions import names_defined, texts_in_files, texts_in_migrations

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_STEP: Final = 10


class Refusal(Exception):
    """The migration cannot be made; the text says why and what to do."""


class Step(Struct, frozen=True):
    """What a migration does to one function, and what takes it back."""

    up: str
    down: str


def new_migration(
    connection: psycopg.Connection[Any], database_files: Path, name: str, functions: Sequence[str], now: datetime
) -> Path:
    """Writes the file and returns its path; raises `Refusal`. The database is as the migrations before leave it."""
    if not _NAME.fullmatch(name):
        raise Refusal(f"{name!r} cannot be the name of a migration: use lower case letters, digits and underscores")
    migrations = database_files / "migrations"
    with connection.transaction(force_rollback=True):
        steps = [_step(connection, database_files, function) for function in functions]
    path = migrations / f"{_next_version(migrations, now)}_{name}.sql"
    up = "\n".join(step.up for step in steps)
    down = "\n".join(step.down for step in reversed(steps))
    path.write_text(f"-- migrate:up\n\n{up}\n-- migrate:down\n\n{down}", encoding="utf-8")
    return path


def _step(connection: psycopg.Connection[Any], database_files: Path, function: str) -> Step:
    """Up: the file's text. Down: the text that the migrations before give it, or DROP FUNCTION if they have none."""
    text = texts_in_files(database_files / "functions").get(function)
    if text is None:
        raise Refusal(f"db/functions/{function}.sql does not exist")
    if names_defined(text) != [function]:
        raise Refusal(f"db/functions/{function}.sql has to define wvs.{function} and nothing else")
    before = _named(connection, function)
    try:
        connection.execute(text.encode())
    except psycopg.errors.InvalidFunctionDefinition as error:
        raise Refusal(_other_shape(function, str(error))) from error
    except psycopg.Error as error:
        raise Refusal(f"db/functions/{function}.sql cannot be loaded: {error}") from error
    after = _named(connection, function)
    if not before:
        return Step(text, f"DROP FUNCTION {after[0].signature};\n")
    if after == before:
        raise Refusal(f"db/functions/{function}.sql is what the migrations make already")
    if len(after) != len(before):
        raise Refusal(_other_shape(function, "its arguments are others"))
    return Step(text, texts_in_migrations(database_files / "migrations")[function])


def _named(connection: psycopg.Connection[Any], function: str) -> list[Routine]:
    return [routine for routine in routines(connection) if routine.name == function]


def _other_shape(function: str, why: str) -> str:
    return (
        f"wvs.{function} cannot be replaced ({why}). The previous release still calls it: leave it, put the new one into "
        f"db/functions/{_next_name(function)}.sql, and list the old one in db/retired.toml"
    )


def _next_name(function: str) -> str:
    base, _, number = function.rpartition("_v")
    return f"{base}_v{int(number) + 1}" if base and number.isdigit() else f"{function}_v2"


def _next_version(migrations: Path, now: datetime) -> str:
    last = max(path.name.partition("_")[0] for path in migrations.glob("*.sql"))
    day = max(last[:8], now.strftime("%Y%m%d"))
    return f"{day}{(int(last[8:]) // _STEP + 1) * _STEP:06d}"
