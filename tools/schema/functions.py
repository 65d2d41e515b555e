"""`db/functions`: today's text of every function, one object a file, below a comment that says what it promises."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psycopg

from tools.schema.dump import Routine, routines

DIRECTORY: Final = Path(__file__).resolve().parents[2] / "db" / "functions"
_DOWN: Final = "-- migrate:down"
_DEFINITION: Final = re.compile(
    r"(?P<comment>(?:^--[^\n]*\n)*)^CREATE (?:OR REPLACE )?(?P<kind>FUNCTION|PROCEDURE) wvs\.(?P<name>\w+)"
    r"(?P<rest>.*?\bAS (?P<quote>\$\w*\$).*?(?P=quote)[^;$]*;)",
    re.MULTILINE | re.DOTALL,
)


def texts_in_files(directory: Path = DIRECTORY) -> dict[str, str]:
    """Name of the function → text of its file."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(directory.glob("*.sql"))}


def texts_in_migrations(directory: Path) -> dict[str, str]:
    """Name of the function → the text that the newest migration gives it, as a file of `db/functions` has it."""
    found: dict[str, str] = {}
    for path in sorted(directory.glob("*.sql")):
        up = path.read_text(encoding="utf-8").partition(_DOWN)[0]
        for match in _DEFINITION.finditer(up):
            comment = match["comment"].replace("-- migrate:up\n", "")
            found[match["name"]] = f"{comment}CREATE OR REPLACE {match['kind']} wvs.{match['name']}{match['rest']}\n"
    return found


def faults_of_files(connection: psycopg.Connection[Any], texts: Mapping[str, str]) -> list[str]:
    """How `texts` differ from the functions of a migrated database; empty if loading them would change nothing.

    Works in the connection's transaction and takes back what it did there.
    """
    there = {routine.signature: routine for routine in routines(connection)}
    missing = sorted({routine.name for routine in there.values()} - texts.keys())
    faults = [f"db/functions/{name}.sql is missing; the migrations make wvs.{name}" for name in missing]
    for name, text in texts.items():
        faults += _faults_of_file(connection, there, name, text)
    return faults


def names_defined(text: str) -> list[str]:
    """The functions that a text creates."""
    return [match["name"] for match in _DEFINITION.finditer(text)]


def _faults_of_file(
    connection: psycopg.Connection[Any], there: Mapping[str, Routine], name: str, text: str
) -> Iterator[str]:
    file = f"db/functions/{name}.sql"
    if not text.startswith("-- "):
        yield f"{file} does not begin with a comment that says what the function promises"
    made = names_defined(text)
    if made != [name]:
        yield f"{file} has to define wvs.{name} and nothing else; it defines {', '.join(made) or 'no function'}"
        return
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL check_function_bodies = off")
            connection.execute(text.encode())
            after = routines(connection)
    except psycopg.Error as error:
        yield f"{file} cannot be loaded: {error}"
        return
    for routine in after:
        before = there.get(routine.signature)
        if before is None:
            yield f"{file} defines {routine.signature}, which no migration makes"
        elif before.definition != routine.definition:
            yield f"{file} differs from the function that the migrations make"
