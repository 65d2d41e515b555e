"""`make schema`: writes `db/schema.sql` and `db/functions` as the migrations make them."""

from pathlib import Path
from typing import Any, Final

import psycopg

from tools.schema.dump import dump_schema, routines
from tools.schema.functions import faults_of_files, texts_in_files, texts_in_migrations

DATABASE_FILES: Final = Path(__file__).resolve().parents[2] / "db"


def write_schema(connection: psycopg.Connection[Any], directory: Path, *, take: bool) -> list[str]:
    """Writes what differs and returns what is left for a person to decide.

    A file of a function that the migrations make differently is an edit that no migration has yet. It is kept, unless
    `take` says to write the migrations' text over it. Comments of files are kept as they are.
    """
    functions = directory / "functions"
    functions.mkdir(exist_ok=True)
    known = {routine.name for routine in routines(connection)}
    migrated = texts_in_migrations(directory / "migrations")
    for name in sorted(known - texts_in_files(functions).keys()):
        (functions / f"{name}.sql").write_text(migrated[name], encoding="utf-8")
    if take:
        for name, text in texts_in_files(functions).items():
            if name not in known:
                (functions / f"{name}.sql").unlink()
            elif faults_of_files(connection, {**migrated, name: text}):
                (functions / f"{name}.sql").write_text(_comment(text) + _code(migrated[name]), encoding="utf-8")
    (directory / "schema.sql").write_text(dump_schema(connection), encoding="utf-8")
    return faults_of_files(connection, texts_in_files(functions))


def _comment(text: str) -> str:
    return text[: text.index("CREATE ")]


def _code(text: str) -> str:
    return text[text.index("CREATE ") :]
