"""The database is away: the one place that says which failures mean that, and what a caller may conclude from them.

By class, never by message: the texts of PostgreSQL and asyncpg change with releases and languages.
"""

import socket
from pathlib import Path
from types import TracebackType
from typing import Final

import asyncpg

CONNECTION_LOST: Final = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server's last message to an idle connection crosses a new query
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    OSError,
    TimeoutError,
)
"""The connection broke. After one of these during a commit, the commit's outcome is unknown."""

ROLLED_BACK: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
"""The server ended the transaction and changed nothing: it may be repeated."""

# 53: out of a resource, 57P0x: the server stops or starts, 25006: a standby.
_UNAVAILABLE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    *ROLLED_BACK,
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


DISK_FULL_HINT: Final = (
    "Free space on the disk of the database. If the volume is on the same disk, drop snapshots (wvsctl snapshot drop): "
    "under wvs up a reserve is kept for drops. Read: wvs runbook disk-full"
)


def disk_full_detail(error: asyncpg.DiskFullError, data_dir: Path | None) -> str:
    """What happened, and to which disk: that of the embedded server's `data_dir`, or of a server elsewhere (None)."""
    disk = "PostgreSQL" if data_dir is None else f"{data_dir} (PostgreSQL's data)"
    return f"The disk of {disk} is full, and nothing was changed: {error}"
