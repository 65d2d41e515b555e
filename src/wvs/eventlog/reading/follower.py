"""Reads the whole log in the order of positions, skips no event and blocks no writer.

A position is assigned before its event is committed, so a reader of the newest rows can pass an event that commits
late. The watermark method (docs/measurements.md#following-the-log): an appender holds a shared advisory lock on a key
below every position that it will get, and a reader goes no further than the least key held.

The end of that range may be a position at which no event stands: its append was rolled back. After a crash of
PostgreSQL it can be assigned again. So a reader keeps and gives out only positions of events that it has read or passed
(docs/adr/0035-positions-of-events.md).
"""

from typing import Final
from uuid import UUID

from msgspec import Struct

from wvs.eventlog.codec import EventMapper, RecordedEvent, StoredEvent, UnknownEventError
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

_LAST: Final = sql("log_last_position")
_LEAST_KEY: Final = sql("log_least_key")
_LAST_COMMITTED: Final = sql("log_last_committed")
_BETWEEN: Final = sql("log_events_between")
_MAX: Final = sql("log_max_position")
_HOLDER: Final = sql("log_watermark_holder")
_EPOCH: Final = sql("log_epoch")
_END: Final = sql("log_end")


class Page(Struct, frozen=True):
    """The events between two positions. A reader that continues behind `safe` misses no event.

    An event stands at `safe`, unless it is the position behind which the page was asked for.
    """

    rows: list[tuple[int, UUID, int, str, bytes, bytes]]
    safe: int


class LogEnd(Struct, frozen=True):
    """The log's epoch and the position of its last event, 0 without one. Followers may have to wait for that event."""

    epoch: int
    last: int


class WatermarkHolder(Struct, frozen=True):
    """The session that holds the least key of the watermark. `pid` is None for a prepared transaction.

    `state`, `wait_event` and `age_s` (of its transaction, in seconds) are None if PostgreSQL does not show them.
    """

    key: int
    pid: int | None
    application: str
    role: str | None
    state: str | None
    wait_event: str | None
    age_s: float | None

    def is_same(self, other: "WatermarkHolder") -> bool:
        """Whether `other` is the same session with the same key."""
        return (self.key, self.pid) == (other.key, other.pid)


class SequenceBehindError(Exception):
    """The sequence would assign positions that are in use: the database was restored without it."""


async def complete_until(connection: Connection) -> int:
    """The position up to which no event can be committed any more. Read up to it, but neither keep it nor give it out.

    Call it outside a transaction, and read the events in a statement after it. The three statements (the sequence, the
    keys, the events) need a snapshot each: in one statement the rows would be read with a snapshot from before the
    locks, which loses events: 138 of 38,640 (docs/measurements.md#following-the-log).
    """
    last: int = await connection.fetchval(_LAST)
    least_key: int | None = await connection.fetchval(_LEAST_KEY)
    return last if least_key is None else min(last, least_key)


async def safe_position(connection: Connection) -> int:
    """The position of the last event up to which the log is complete for readers from now on; 0 without one."""
    return await last_committed(connection, await complete_until(connection))


async def last_committed(connection: Connection, until: int) -> int:
    """The position of the last event at or before `until`; 0 without one."""
    position: int = await connection.fetchval(_LAST_COMMITTED, until)
    return position


async def watermark_holder(connection: Connection) -> WatermarkHolder | None:
    """The session that readers of the log wait for; None if they wait for none."""
    row = await connection.fetchrow(_HOLDER)
    return None if row is None else WatermarkHolder(*row)


async def read_page(connection: Connection, after: int, limit: int) -> Page:
    """Up to `limit` stored events after position `after`, in order."""
    until = await complete_until(connection)
    if until <= after:
        return Page([], after)
    rows = await connection.fetch(_BETWEEN, after, until, limit)
    return Page([tuple(row) for row in rows], rows[-1][0] if rows else after)


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


async def log_end(connection: Connection) -> LogEnd:
    """Epoch and last event of the log. No position above it was ever given out for this log."""
    row = await connection.fetchrow(_END)
    if row is None:
        raise AssertionError("wvs.log_identity has one row")
    return LogEnd(row["epoch"], row["last"])
