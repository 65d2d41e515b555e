"""Connections to PostgreSQL 15 or newer, with limits that turn a broken network into an error instead of a long wait.

A connection goes back to its pool without asyncpg's reset query: that query costs a round trip, and WVS leaves no
session state on a pooled connection. Therefore code on a pooled connection uses only `SET LOCAL` and transaction-level
advisory locks, and never LISTEN. Code that needs a session (holder locks, LISTEN) opens its own connection with
`connect`. The pool still rolls back a transaction that is open when its connection returns.

Every connection sets its own limits, whatever the role or the database has (ALTER ROLE … SET statement_timeout). It
sets them by SQL and not in the startup packet: a pooler such as PgBouncer refuses a startup parameter that it does not
know.

`jsonb` values are the bytes of a JSON text: `msgspec.json` encodes and decodes them. uuid is `uuid.UUID`.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, TypeAlias

import asyncpg

from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.database_url import DatabaseUrl, enable_keepalive, parse_url

Record: TypeAlias = asyncpg.Record
OwnConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Connection: TypeAlias = "OwnConnection | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

CLOSE_TIMEOUT_S: Final = 5.0
ACQUIRE_TIMEOUT_S: Final = 5.0
COMMAND_TIMEOUT_S: Final = 10.0
TRANSACTION_TIMEOUT_S: Final = 30.0
_TRANSACTION_TIMEOUT_SINCE: Final = 17
_JSONB_VERSION: Final = b"\x01"  # first byte of jsonb's binary form, jsonb_recv in jsonb.c
_LIMITS: Final[Mapping[str, str]] = {
    # The server closes a dead connection on its side too, and so releases the locks that the connection held.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "15s",
    # A listener is idle for hours, a rebuild runs one statement for minutes. `command_timeout` bounds the rest.
    "idle_session_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": "0",
}
_NEXT_HOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)


async def create_pool(
    url: str,
    *,
    application_name: str,
    size: int,
    min_size: int = 1,
    command_timeout_s: float = COMMAND_TIMEOUT_S,
    transaction_timeout_s: float = TRANSACTION_TIMEOUT_S,
) -> Pool:
    """Opens a pool of at most `size` connections; the caller closes it.

    Raises `InvalidDatabaseUrl`, or what asyncpg raises when the server cannot be reached (`OSError`,
    `asyncpg.PostgresError`, `TimeoutError`).
    """
    target = parse_url(url)

    async def open_one(*_: object, **driver: Any) -> OwnConnection:
        return await open_connection(target, application_name, command_timeout=command_timeout_s, **driver)

    pool: Pool = asyncpg.create_pool(
        min_size=min_size,
        max_size=size,
        connect=open_one,
        init=partial(_prepare, url=target, transaction_timeout_s=transaction_timeout_s),
        reset=_skip_reset,
    )
    return await pool


def acquire(pool: Pool, timeout_s: float = ACQUIRE_TIMEOUT_S) -> AbstractAsyncContextManager[Connection]:
    """A pooled connection for a `with` block. `TimeoutError` if no connection is free in time: a stall sheds load."""
    return pool.acquire(timeout=timeout_s)


async def connect(
    url: str,
    *,
    application_name: str,
    command_timeout_s: float | None = COMMAND_TIMEOUT_S,
    transaction_timeout_s: float = 0,
) -> OwnConnection:
    """Opens one connection outside any pool; the caller closes it. Raises the same errors as `create_pool`.

    Without `transaction_timeout_s` a busy transaction may last any time (rebuilds need that); the server still ends an
    idle one.
    """
    target = parse_url(url)
    connection = await open_connection(target, application_name, command_timeout=command_timeout_s)
    try:
        await _prepare(connection, url=target, transaction_timeout_s=transaction_timeout_s)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def open_connection(url: DatabaseUrl, application_name: str, **driver: Any) -> OwnConnection:
    """A connection without our limits to the first of the hosts that accepts it; each host has the whole timeout.

    `driver` are more arguments of `asyncpg.connect`.
    """
    settings = {"application_name": url.application_name(application_name), "timezone": "UTC"}
    if "options" in url.server:
        settings["options"] = url.server["options"]
    arguments = {**_STATEMENT_CACHE, **driver, "user": url.user, "password": url.password, "database": url.database}
    *others, last = url.hosts
    for host in others:
        try:
            return await _open_on(url, host.name, host.port, settings, arguments)
        except _NEXT_HOST:
            continue
    return await _open_on(url, last.name, last.port, settings, arguments)


async def _open_on(
    url: DatabaseUrl, host: str | None, port: int | None, settings: dict[str, str], arguments: dict[str, Any]
) -> OwnConnection:
    connection: OwnConnection = await asyncpg.connect(
        url.dsn, host=host, port=port, timeout=url.connect_timeout_s, server_settings=settings, **arguments
    )
    return connection


async def close(opened: "Pool | OwnConnection") -> None:
    """Closes a pool or a connection, also if the server is gone. Raises nothing, and takes at most 5 s.

    A server that is gone makes the close fail, too; that error would hide the result of the work.
    """
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await opened.close()
    except CONNECTION_LOST:
        opened.terminate()


_STATEMENT_CACHE: Final[Mapping[str, Any]] = {
    "statement_cache_size": 512,
    "max_cached_statement_lifetime": 0,
    "max_cacheable_statement_size": 64 * 1024,
}


def limits_of(connection: Connection, url: DatabaseUrl, transaction_timeout_s: float) -> dict[str, str]:
    """The settings of one connection. What the URL's `options` name is left to them."""
    limits = dict(_LIMITS)
    if connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE:
        limits["transaction_timeout"] = f"{int(transaction_timeout_s * 1000)}ms"
    return {name: value for name, value in limits.items() if name not in url.server.get("options", "")}


async def _prepare(connection: OwnConnection, *, url: DatabaseUrl, transaction_timeout_s: float) -> None:
    # asyncpg has no keepalive setting for the client's end; its private transport is the only way to the socket.
    transport: Any = connection._transport  # noqa: SLF001
    enable_keepalive(transport.get_extra_info("socket"), url.keepalive)
    limits = limits_of(connection, url, transaction_timeout_s)
    await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in limits.items()))
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )


async def _skip_reset(_connection: Connection) -> None:
    """Replaces asyncpg's reset query; the module's docstring says why."""


def _encode_jsonb(value: bytes | str) -> bytes:
    return _JSONB_VERSION + (value.encode() if isinstance(value, str) else value)


def _decode_jsonb(value: bytes) -> bytes:
    return value[1:]
