r"""The schema of a database as SQL text: deterministic, and the same for the same schema on PostgreSQL 15 to 18.

The text is a script for psql. It makes the schema in an empty database; functions come from `db/functions` by `\ir`.
pg_dump would say the same in another order and with other defaults in each of its releases.
"""

from collections import defaultdict
from typing import Any, Final, LiteralString

import psycopg
from msgspec import Struct
from psycopg.rows import namedtuple_row

from tools.schema import catalog

HEAD: Final = """\
-- The schema as the migrations make it. `make schema` writes this file; a test compares it with a migrated database.
-- To make an empty database like it: psql -f db/schema.sql
"""


class UnknownObject(Exception):
    """The database has an object of a kind that the dump cannot write; the text names it."""


class Routine(Struct, frozen=True):
    """A function or procedure: `definition` is the server's own text of it."""

    schema: str
    name: str
    signature: str
    definition: str
    result: str | None


def dump_schema(connection: psycopg.Connection[Any]) -> str:
    """The whole text; raises `UnknownObject`."""
    _qualify_names(connection)
    schemas = _fetch(connection, catalog.SCHEMAS)
    inside = {"schemas": [row.oid for row in schemas]}
    unknown = _fetch(connection, catalog.UNKNOWN, inside)
    if unknown:
        raise UnknownObject(f"tools/schema/catalog.py cannot write: {', '.join(row.what for row in unknown)}")
    tables = sorted(_fetch(connection, catalog.TABLES, inside), key=lambda row: row.name)
    of_tables = {"tables": [row.oid for row in tables]}
    sections = [
        [f"CREATE SCHEMA {row.name};" for row in sorted(schemas, key=lambda row: row.name)],
        [
            f"CREATE TYPE {row.name} AS (\n    {row.columns}\n);"
            for row in sorted(_fetch(connection, catalog.COMPOSITES, inside), key=lambda row: row.name)
        ],
        _tables(connection, tables, of_tables),
        _texts(connection, catalog.INDEXES, of_tables),
        [
            "SET check_function_bodies = off;",
            *(f"\\ir functions/{name}.sql" for name in dict.fromkeys(routine.name for routine in routines(connection))),
        ],
        _texts(connection, catalog.TRIGGERS, of_tables),
        _texts(connection, catalog.COMMENTS, inside),
        _texts(connection, catalog.GRANTS, inside),
    ]
    return "\n".join([HEAD, *("\n".join(section) + "\n" for section in sections if section)])


def routines(connection: psycopg.Connection[Any]) -> list[Routine]:
    """Every function and procedure in the schemas of WVS, by name."""
    _qualify_names(connection)
    schemas = [row.oid for row in _fetch(connection, catalog.SCHEMAS)]
    rows = _fetch(connection, catalog.FUNCTIONS, {"schemas": schemas})
    return [Routine(row.schema, row.name, row.signature, row.definition, row.result) for row in rows]


def _qualify_names(connection: psycopg.Connection[Any]) -> None:
    """The server leaves out the schema of what is in the search path, which differs from role to role."""
    connection.execute("SET search_path = pg_catalog")


def _tables(connection: psycopg.Connection[Any], tables: list[Any], of_tables: dict[str, Any]) -> list[str]:
    inside: dict[int, list[str]] = defaultdict(list)
    for query in (catalog.COLUMNS, catalog.CONSTRAINTS):
        for row in _fetch(connection, query, of_tables):
            inside[row.of].append(row.text)
    return [_table(row, inside[row.oid]) for row in tables]


def _table(row: Any, lines: list[str]) -> str:
    options = f" WITH ({', '.join(row.options)})" if row.options else ""
    body = ",\n".join(f"    {line}" for line in lines)
    return f"CREATE {'UNLOGGED ' if row.unlogged else ''}TABLE {row.name} (\n{body}\n){options};"


def _texts(connection: psycopg.Connection[Any], query: LiteralString, values: dict[str, Any]) -> list[str]:
    return [row.text for row in _fetch(connection, query, values)]


def _fetch(
    connection: psycopg.Connection[Any], query: LiteralString, values: dict[str, Any] | None = None
) -> list[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(query, values or {}).fetchall()
