"""Connections to PostgreSQL 15 or newer, with limits that turn a broken network into an error instead of a long wait.

A connection goes back to its pool without asyncpg's reset query: that query costs a round trip, and WVS leaves no
session state on a pooled connection. Therefore code on a pooled connection uses only `SET LOCAL` and transaction-level
advisory locks, and never LISTEN. Code that needs a session (holder locks, LISTEN) opens its own connection with
`connect`. The pool still rolls back a transaction that is open when its connection returns.

`jsonb` values are the bytes of a JSON text: `msgspec.json` encodes and decodes them. uuid is `uuid.UUID`.
"""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.errors import InvalidDatabaseUrl

Record: TypeAlias = asyncpg.Record
OwnConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Connection: TypeAlias = "OwnConnection | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

CONNECT_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 5.0
ACQUIRE_TIMEOUT_S: Final = 5.0
COMMAND_TIMEOUT_S: Final = 10.0
IDLE_IN_TRANSACTION_S: Final = 10.0
TRANSACTION_TIMEOUT_S: Final = 30.0
USER_TIMEOUT_MS: Final = 15_000  # data unacknowledged for this long: the peer is gone (tcp(7), RFC 5482)
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_COUNT: Final = 2
_TRANSACTION_TIMEOUT_SINCE: Final = 17
_JSONB_VERSION: Final = b"\x01"  # first byte of jsonb's binary form, jsonb_recv in jsonb.c


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
    check_url(url)
    probe = await connect(url, application_name=application_name)
    try:
        settings = _server_settings(application_name, _transaction_timeout(probe, transaction_timeout_s))
    finally:
        await close(probe)
    pool: Pool = asyncpg.create_pool(
        url,
        min_size=min_size,
        max_size=size,
        init=_prepare,
        reset=_skip_reset,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        server_settings=settings,
        **_STATEMENT_CACHE,
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
    transaction_timeout_s: float | None = None,
) -> OwnConnection:
    """Opens one connection outside any pool; the caller closes it. Raises the same errors as `create_pool`.

    Without `transaction_timeout_s` a busy transaction may last any time (rebuilds need that); the server still ends an
    idle one.
    """
    check_url(url)
    connection: OwnConnection = await asyncpg.connect(
        url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        server_settings=_server_settings(application_name, {}),
        **_STATEMENT_CACHE,
    )
    try:
        await _prepare(connection)
        if transaction_timeout_s is not None:
            for name, value in _transaction_timeout(connection, transaction_timeout_s).items():
                await connection.execute("select set_config($1, $2, false)", name, value)
    except BaseException:
        connection.terminate()
        raise
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


def check_url(url: str) -> None:
    """Raises `InvalidDatabaseUrl` unless `url` has the form that asyncpg accepts."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"postgresql", "postgres"} and "\0" not in url
    except ValueError:
        valid = False
    if not valid:
        raise InvalidDatabaseUrl(
            "the database URL must look like postgresql://USER:PASSWORD@HOST:PORT/DATABASE "
            "or, for a socket, postgresql://USER@/DATABASE?host=/DIRECTORY"
        )


_STATEMENT_CACHE: Final[Mapping[str, Any]] = {
    "statement_cache_size": 512,
    "max_cached_statement_lifetime": 0,
    "max_cacheable_statement_size": 64 * 1024,
}


def _server_settings(application_name: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Makes the server close a dead connection on its side too, and so release the locks that the connection held."""
    return {
        "application_name": application_name,
        "timezone": "UTC",
        "idle_in_transaction_session_timeout": _milliseconds(IDLE_IN_TRANSACTION_S),
        "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
        "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
        "tcp_keepalives_count": str(KEEPALIVE_COUNT),
        "tcp_user_timeout": str(USER_TIMEOUT_MS),
        **extra,
    }


def _transaction_timeout(connection: Connection, seconds: float) -> dict[str, str]:
    if connection.get_server_version().major < _TRANSACTION_TIMEOUT_SINCE:
        return {}
    return {"transaction_timeout": _milliseconds(seconds)}


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


async def _prepare(connection: OwnConnection) -> None:
    _enable_keepalive(connection)
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )


async def _skip_reset(_connection: Connection) -> None:
    """Replaces asyncpg's reset query; the module's docstring says why."""


def _encode_jsonb(value: bytes | str) -> bytes:
    return _JSONB_VERSION + (value.encode() if isinstance(value, str) else value)


def _decode_jsonb(value: bytes) -> bytes:
    return value[1:]


def _enable_keepalive(connection: OwnConnection) -> None:
    """Asyncpg has no keepalive setting for the client's end; its private transport is the only way to the socket."""
    transport: Any = connection._transport  # noqa: SLF001
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_COUNT),
        ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
