"""Reading the whole log in one growing order, with nothing skipped and no writer made to wait.

Positions are handed out before commits, so a reader of the newest rows can pass an event that commits late. The
watermark method (docs/measurements.md#following-the-log): an appender holds a shared advisory lock on a key below every
position it will get; a reader goes no further than the least key held.
"""

from typing import Final
from uuid import UUID

from msgspec import Struct

from wvs.eventlog.codec import EventMapper, StoredEvent, UnknownEventError
from wvs.eventlog.codec import Recorded as RecordedEvent
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

_LAST: Final = sql("log_last_position")
_LEAST_KEY: Final = sql("log_least_key")
_BETWEEN: Final = sql("log_events_between")
_MAX: Final = sql("log_max_position")
_EPOCH: Final = sql("log_epoch")


class Positioned(Struct, frozen=True):
    """An event with its position in the order of the whole log, and its hash."""

    position: int
    recorded: RecordedEvent
    hash: bytes


class Page(Struct, frozen=True):
    """What stood between two positions. `safe` may be read up to without ever missing an event below it."""

    rows: list[tuple[int, UUID, int, str, bytes, bytes]]
    safe: int


class SequenceBehindError(Exception):
    """The sequence would hand out positions that are taken: the database was restored without it."""


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
    """The last position handed out, whether or not its event is committed yet."""
    last: int = await connection.fetchval(_LAST)
    return last


async def read_page(connection: Connection, after: int, limit: int) -> Page:
    """Up to `limit` stored events behind position `after`, in order."""
    safe = await safe_position(connection)
    if safe <= after:
        return Page([], after)
    rows = await connection.fetch(_BETWEEN, after, safe, limit)
    return Page([tuple(row) for row in rows], rows[-1][0] if len(rows) == limit else safe)


async def read_events(connection: Connection, mapper: EventMapper, after: int, limit: int) -> list[Positioned]:
    """The events of one page, decoded; raises `UnknownEventError` rather than skip one."""
    page = await read_page(connection, after, limit)
    return [
        Positioned(position, decode_at(mapper, position, StoredEvent(ws, version, topic, state)), digest)
        for position, ws, version, topic, state, digest in page.rows
    ]


def decode_at(mapper: EventMapper, position: int, stored: StoredEvent) -> RecordedEvent:
    """The event at a position; raises `UnknownEventError`, which names the position."""
    try:
        return mapper.to_domain_event(stored)
    except UnknownEventError as error:
        raise UnknownEventError(f"position {position}, {error}") from error


async def check_sequence(connection: Connection) -> None:
    """Raises `SequenceBehindError` if the next position would not be above every stored one."""
    # In this order: others may be writing, and what they write between the two reads must not look like a gap.
    highest: int = await connection.fetchval(_MAX)
    last: int = await connection.fetchval(_LAST)
    if highest > last:
        raise SequenceBehindError(
            f"The log's sequence stands at {last}, but position {highest} is taken. Set it with "
            f"SELECT setval('wvs.events_notification_id_seq', {highest}) and raise the epoch in wvs.log_identity."
        )


async def log_epoch(connection: Connection) -> int:
    """The epoch that positions are handed out with, as `epoch:position`."""
    epoch: int = await connection.fetchval(_EPOCH)
    return epoch
