"""Whether a program and a schema fit each other: a release is rolled by migrating first and then replacing its programs
one after the other (docs/adr/0040-rolling-upgrades.md).

A program needs `LEAST_MIGRATION`, and knows all migrations that it brings along. A schema with migrations that it does
not know is accepted while `wvs.least_program_migration()` says that the schema supports a program of that age.
"""

from pathlib import Path
from typing import Final

import asyncpg

from wvs.postgres.errors import SchemaTooNew, SchemaTooOld
from wvs.postgres.migrate import applied_migrations, migration_files
from wvs.postgres.pool import Connection, close, connect
from wvs.postgres.queries import sql

LEAST_MIGRATION: Final = "20261129000450"
"""The newest migration that the queries of this program rely on."""

_LEAST_PROGRAM: Final = sql("least_program_migration")


async def check_schema(connection: Connection, directory: Path | None = None) -> None:
    """Raises `SchemaTooOld` or `SchemaTooNew`, which say what the schema has and what the program needs.

    Works on a pooled connection too.
    """
    known = migration_files(directory)
    applied = await applied_migrations(connection)
    lacking = [name for version, name in known.items() if version <= LEAST_MIGRATION and version not in applied]
    if lacking:
        at = f"is at migration {max(applied)}" if applied else "has no migrations"
        names = f" (not applied: {', '.join(lacking)})" if applied else ""
        raise SchemaTooOld(
            f"the schema of the database is too old: it {at}, and this program needs migration {LEAST_MIGRATION}"
            f"{names}; run wvs migrate of this release"
        )
    if applied - known.keys():
        await _check_newer(connection, newest_known=max(known), newest_applied=max(applied))


async def check_schema_at(url: str) -> None:
    """`check_schema` on a connection of its own; raises what `connect` raises, too."""
    connection = await connect(url, application_name="wvs-check-schema")
    try:
        await check_schema(connection)
    finally:
        await close(connection)


async def _check_newer(connection: Connection, *, newest_known: str, newest_applied: str) -> None:
    try:
        least: str = await connection.fetchval(_LEAST_PROGRAM)
    except asyncpg.UndefinedFunctionError:
        supports = "does not say which programs it supports"
    else:
        if newest_known >= least:
            return
        supports = f"supports programs that know migration {least}"
    raise SchemaTooNew(
        f"the schema of the database is too new: it is at migration {newest_applied} and {supports}, and this program "
        f"knows migrations up to {newest_known}; use a newer release of wvs"
    )
