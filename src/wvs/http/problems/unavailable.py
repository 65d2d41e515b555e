"""Which failures mean "the service cannot do it now, ask again" instead of "the service is broken"."""

import socket
from types import TracebackType

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

# By class, never by message. 53: out of a resource, 57P0x: the server goes down or comes up, 25006: a standby.
_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    # The server's last word to an idle connection crosses a new query: asyncpg's state machine trips over it.
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)


def is_unavailable(error: BaseException) -> bool:
    """True for a database that is unreachable, restarting, overloaded or too slow, and for an exhausted pool.

    A plain `InterfaceError` (closed connection, closing pool) counts; its subclasses report misuse and do not. An
    `OSError` counts if it came out of asyncpg: a stopped server's socket file is a `FileNotFoundError` there.
    """
    if isinstance(error, _UNAVAILABLE) or type(error) is asyncpg.InterfaceError:
        return True
    return isinstance(error, OSError) and _came_out_of_asyncpg(error.__traceback__)


def _came_out_of_asyncpg(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith("asyncpg."):
            return True
        traceback = traceback.tb_next
    return False
