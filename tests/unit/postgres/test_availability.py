import asyncio
import socket
from collections.abc import Callable

import asyncpg
import pytest

from wvs.postgres.availability import is_unavailable


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.AdminShutdownError(),
        asyncpg.TooManyConnectionsError(),
        asyncpg.DiskFullError(),
        asyncpg.QueryCanceledError(),
        asyncpg.LockNotAvailableError(),
        asyncpg.DeadlockDetectedError(),
        asyncpg.ReadOnlySQLTransactionError(),
        asyncpg.InterfaceError("pool is closing"),
        asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"),
        ConnectionRefusedError(),
        TimeoutError(),
        socket.gaierror(),
    ],
    ids=repr,
)
def test_an_error_that_passes_by_itself_is_unavailable(error: Exception) -> None:
    assert is_unavailable(error)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError(),
        asyncpg.UndefinedTableError(),
        asyncpg.UnsupportedClientFeatureError("a misuse"),
        asyncpg.InvalidTextRepresentationError(),
        FileNotFoundError("a file of ours"),
        PermissionError(),
        ValueError(),
    ],
    ids=repr,
)
def test_a_defect_of_wvs_is_not_unavailable(error: Exception) -> None:
    assert not is_unavailable(error)


@pytest.mark.parametrize("host", ["/nonexistent-directory-of-sockets", "127.0.0.1"])
async def test_an_unreachable_database_is_unavailable_however_it_is_addressed(
    host: str, unused_tcp_port_factory: Callable[[], int]
) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one depends on the way
        await asyncpg.connect(host=host, port=unused_tcp_port_factory(), user="nobody", database="none")
    assert is_unavailable(caught.value)


async def test_a_pool_that_gives_no_connection_in_time_is_unavailable() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    assert is_unavailable(caught.value)
