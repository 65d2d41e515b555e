"""Whether a database can serve WVS: asked when a program starts, and patiently while the server is away.

WVS needs sessions: LISTEN, and advisory locks that show that an executor lives. A pooler that gives a server process to
a connection for one transaction only (PgBouncer's `pool_mode=transaction` or `statement`) breaks both without an error.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
import structlog

from wvs.postgres.availability import is_unavailable
from wvs.postgres.database_url import DatabaseUrl, parse_url
from wvs.postgres.errors import ReadOnlyDatabase, UnfitDatabase
from wvs.postgres.pool import Connection, OwnConnection, close, open_connection
from wvs.postgres.queries import sql

POOLED_PROBES: Final = 6
"""Connections that compare their server processes behind a pooler: several, since a pooler may be several processes."""
_DIRECT_PROBES: Final = 2
_ASKED_PER_PROBE: Final = 2
_OVERLAPPING_ROUNDS: Final = 4
_RETRY_S: Final = 0.5
_PROBE_TIMEOUT_S: Final = 5.0
_SERVER_PROCESS: Final = sql("server_process")
_ENCODING: Final = sql("database_encoding")
_WRITABILITY: Final = sql("writability")
_STANDBY: Final = "the database is a read-only standby; WVS_DATABASE_URL must lead to the primary"
_READ_ONLY: Final = (
    "the database is read-only (default_transaction_read_only is on for the server, the database or the role)"
)
_WRITABLE_AGAIN: Final = {
    _STANDBY: "Promote the standby, or set WVS_DATABASE_URL to the primary.",
    _READ_ONLY: "Turn it off where it was set: by ALTER DATABASE … or ALTER ROLE … RESET "
    "default_transaction_read_only, in postgresql.conf, or in `options` of WVS_DATABASE_URL. "
    "SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only' names the place.",
}

R = TypeVar("R")

log = structlog.get_logger(__name__)


async def check_access(url: str, *, for_writes: bool) -> None:
    """Raises `UnfitDatabase` for a database that has another encoding than UTF-8 or is behind a transaction pooler.

    With `for_writes` it raises `ReadOnlyDatabase` for a database that refuses writes. Raises `InvalidDatabaseUrl`, and
    what asyncpg raises if the server cannot be reached.
    """
    target = parse_url(url)
    if target.unbound_channel:
        log.warning("channel_binding_not_checked", instead="sslmode=verify-full with sslrootcert checks the server")
    async with _probes(target) as new_probe:
        first = await new_probe()
        await _require_sessions(first, new_probe)
        await _require_utf8(first)
        reason = await why_read_only(first) if for_writes else None
        if reason is not None:
            raise ReadOnlyDatabase(reason, _WRITABLE_AGAIN[reason])


async def why_read_only(connection: Connection) -> str | None:
    """The reason why this connection cannot write; None if it can. Works on a pooled connection."""
    row = await connection.fetchrow(_WRITABILITY)
    if row is None or not (row["standby"] or row["read_only"]):
        return None
    if row["standby"]:
        return _STANDBY
    return _READ_ONLY


async def when_reachable(
    attempt: Callable[[], Awaitable[R]],
    wait_s: float,
    on_wait: Callable[[str], None] = lambda _reason: None,
) -> R:
    """What `attempt` returns, repeated for at most `wait_s` seconds while the database is away.

    Away is a database that cannot be reached, starts, has no connection left or, for `ReadOnlyDatabase`, is a standby.
    Logs once that it waits, and calls `on_wait` with the reason after each attempt. Raises the last error when the time
    is over, and any other error at once.
    """
    began = time.monotonic()
    waiting = False
    while True:
        try:
            result = await attempt()
        except Exception as error:
            waited_s = time.monotonic() - began
            if not _passes(error) or waited_s >= wait_s:
                raise
            reason = reason_of(error)
            on_wait(reason)
            if not waiting:
                log.warning("waiting_for_database", reason=reason, at_most_s=wait_s, setting="WVS_DATABASE_WAIT_S")
                waiting = True
        else:
            if waiting:
                log.info("database_reached", waited_s=round(time.monotonic() - began, 1))
            return result
        await asyncio.sleep(_RETRY_S)


def reason_of(error: Exception) -> str:
    """One sentence about a database that cannot be used now."""
    if isinstance(error, UnfitDatabase):
        return error.detail
    return f"the database cannot be reached ({type(error).__name__}: {error})" if str(error) else type(error).__name__


def _passes(error: Exception) -> bool:
    return isinstance(error, ReadOnlyDatabase) or (
        is_unavailable(error) and not isinstance(error, ssl.SSLCertVerificationError)
    )


@contextlib.asynccontextmanager
async def _probes(url: DatabaseUrl) -> AsyncGenerator[Callable[[], Awaitable[OwnConnection]]]:
    """A function that opens one more connection; all stay open until the end of the block.

    They use no named statement: a pooler before PgBouncer 1.21 would mix those of several connections.
    """
    opened: list[OwnConnection] = []

    async def new_probe() -> OwnConnection:
        probe = await open_connection(url, "wvs-check", command_timeout=_PROBE_TIMEOUT_S, statement_cache_size=0)
        opened.append(probe)
        return probe

    try:
        yield new_probe
    finally:
        await asyncio.gather(*(close(probe) for probe in opened))


async def _require_utf8(probe: OwnConnection) -> None:
    row = await probe.fetchrow(_ENCODING)
    if row is not None and row["encoding"] != "UTF8":
        raise UnfitDatabase(
            "DATABASE_ENCODING",
            f"the database {row['name']} has the encoding {row['encoding']}, and WVS stores text that needs UTF8",
            "Make another one with CREATE DATABASE wvs_utf8 ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0; and set "
            "WVS_DATABASE_URL to it. pg_dump and psql convert what the old one holds.",
        )


async def _require_sessions(first: OwnConnection, new_probe: Callable[[], Awaitable[OwnConnection]]) -> None:
    """Raises `UnfitDatabase` if a connection does not keep its server process.

    Open connections that keep theirs have one each, and always the same. Anything else proves a pooler in transaction
    mode. To bring it to light, probes ask for the number of their server process:

    - one after the other. An idle pooler gives the next transaction the process that was used last, whosever it was, or
      another one each time.
    - all within transactions that overlap, in another order each time. A busy pooler then hands out in that order what
      is free, and what others have left.

    PgBouncer is recognised by the number that it gives to a client instead of that of the server process. Without a
    pooler two probes are enough.
    """
    probe, owners = first, dict[int, OwnConnection]()
    while True:
        processes = {await _server_process(probe, new_probe) for _ in range(_ASKED_PER_PROBE)}
        if len(processes) > 1 or processes & owners.keys():
            raise _pooler("a server process is kept for one transaction only")
        owners |= dict.fromkeys(processes, probe)
        is_direct = first.get_server_pid() in owners
        if len(owners) == (_DIRECT_PROBES if is_direct else POOLED_PROBES):
            break
        probe = await new_probe()
    for shift in () if is_direct else range(1, _OVERLAPPING_ROUNDS + 1):
        probes = [*owners.values()]
        if await _overlapping([*probes[shift:], *probes[:shift]]) != owners:
            raise _pooler("a server process is kept for one transaction only")


async def _overlapping(probes: list[OwnConnection]) -> dict[int, OwnConnection]:
    """The server process of each probe, in transactions that all end when the last one has begun."""
    owners: dict[int, OwnConnection] = {}
    async with contextlib.AsyncExitStack() as transactions:
        for probe in probes:
            await transactions.enter_async_context(probe.transaction())
            owners[await probe.fetchval(_SERVER_PROCESS)] = probe
    return owners


async def _server_process(probe: OwnConnection, new_probe: Callable[[], Awaitable[OwnConnection]]) -> int:
    for another in (True, False):
        try:
            async with probe.transaction():
                process: int = await probe.fetchval(_SERVER_PROCESS)
                return process
        except asyncpg.ConnectionDoesNotExistError:
            if not another:
                raise _pooler("a transaction of several statements is refused") from None
            probe = await new_probe()
            await probe.execute("SELECT 1")  # the server is there, and it is only the transaction that fails
    raise AssertionError


def _pooler(evidence: str) -> UnfitDatabase:
    return UnfitDatabase(
        "DATABASE_POOLER",
        f"a connection pooler in transaction or statement mode is between WVS and the database: {evidence}. "
        "WVS keeps locks and LISTEN in its sessions",
        "Set WVS_DATABASE_URL of executors and of wvs migrate to PostgreSQL itself; that of the API there too, or to a "
        "pool with pool_mode=session. WVS sends no startup parameter that PgBouncer would have to ignore.",
    )
