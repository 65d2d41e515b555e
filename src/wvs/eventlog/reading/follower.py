"""Reads the whole log in the order of positions, skips no event and blocks no writer.

A position is assigned before its event is committed, so a reader of the newest rows can pass an event that commits
late. The watermark method (docs/measurements.md#following-the-log): an appender holds a shared advisory lock on a key
below every position that it will get, and a reader goes no further than the least key held.
"""

from typing import Final
from uuid import UUID

from msgspec import Struct

from wvs.eventlog.codec import EventMapper, RecordedEvent, StoredEvent, UnknownEventError
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

_LAST: Final = sql("log_last_position")
_LEAST_KEY: Final = sql("log_least_key")
_BETWEEN: Final = sql("log_events_between")
_MAX: Final = sql("log_max_position")
_EPOCH: Final = sql("log_epoch")


class Page(Struct, frozen=True):
    """The events between two positions. A reader that continues behind `safe` misses no event."""

    rows: list[tuple[int, UUID, int, str, bytes, bytes]]
    safe: int


class SequenceBehindError(Exception):
    """The sequence would assign positions that are in use: the database was restored without it."""


async def safe_position(connection: Connection) -> int:
    """The position up to which the log is complete for readers from now on.

    Three statements, each with a snapshot of its own (READ COMMITTED, outside a transaction): in one statement the
    rows would be read with a snapshot from before the locks, which loses events: 138 of 38,640
    (docs/measurements.md#following-the-log).
    """
    last: int = await connection.fetchval(_LAST)
    least_key: int | None = await connection.fetchval(_LEAST_KEY)
    return last if least_key is None else min(last, least_key)


async def last_position(connection: Connection) -> int:
    """The last position that was assigned, whether or not its event is committed yet."""
    last: int = await connection.fetchval(_LAST)
    return last


async def read_page(connection: Connection, after: int, limit: int) -> Page:
    """Up to `limit` stored events after position `after`, in order."""
    safe = await safe_position(connection)
    if safe <= after:
        return Page([], after)
    rows = await connection.fetch(_BETWEEN, after, safe, limit)
    return Page([tuple(row) for row in rows], rows[-1][0] if len(rows) == limit else safe)


def decode_at(mapper: EventMapper, position: int, stored: StoredEvent) -> RecordedEvent:
    """The event at a position; raises `UnknownEventError`, which names the position."""
    try:
        return mapper.to_domain_event(stored)
    except UnknownEventError as error:
        raise UnknownEventError(f"position {position}, {error}") from error


async def check_sequence(connection: Connection) -> None:
    """Raises `SequenceBehindError` if the next position would not be above every stored one."""
    # In this order: an event that another process appends between the two reads must not look like a gap.
    highest: int = await connection.fetchval(_MAX)
    last: int = await connection.fetchval(_LAST)
    if highest > last:
        raise SequenceBehindError(
            f"The log's sequence is at {last}, but position {highest} is in use. Set it with "
            f"SELECT setval('wvs.events_notification_id_seq', {highest}) and raise the epoch in wvs.log_identity."
        )


async def log_epoch(connection: Connection) -> int:
    """The epoch of the log; clients see positions as `epoch:position`."""
    epoch: int = await connection.fetchval(_EPOCH)
    return epoch
