"""Reads the log, or one workspace's part of it, through the audit's filters: by type, actor, task and time.

One filter leads (a task before a type before an actor) and has its index. The other filters are checked on the events
of that index, on at most `WALKED_EVENTS` for one page. A page may therefore be short or empty, and not the last one.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.eventlog.reading.follower import complete_until
from wvs.eventlog.upcasting import names_before
from wvs.postgres.pool import Connection
from wvs.postgres.queries import Composed, compose, sql

WALKED_EVENTS: Final = 5_000
"""Events looked at for one page, at most; some 10 ms."""

_BATCH: Final = 1_000


def _walk_along(walk: str) -> Composed:
    return compose(walk, ("event_walked",), (walk,))


_ALL: Final = _walk_along("event_positions")
_OF_TOPIC: Final = _walk_along("event_positions_of_topic")
_OF_ACTOR: Final = _walk_along("event_positions_of_actor")
_OF_TASK: Final = _walk_along("event_positions_of_task")
_IN_WORKSPACE: Final = _walk_along("event_versions")
_IN_WORKSPACE_OF_TOPIC: Final = _walk_along("event_versions_of_topic")
_VERSION_AT: Final = sql("workspace_version_at")
_POSITION_BEFORE: Final = sql("position_before")
_POSITION_UNTIL: Final = sql("position_until")

EventRow = tuple[int, UUID, int, str, bytes, bytes]
"""Position, workspace, version, topic, stored bytes, hash."""


class EventFilter(Struct, frozen=True):
    """Which events; None asks for all. `since` is included, `until` is not."""

    workspace_id: UUID | None = None
    topic: str | None = None
    actor: str | None = None
    task_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every event passes."""
        return self == EventFilter()


class FilteredPage(Struct, frozen=True):
    """Events that passed, in order. `walked_to` is the event after which the next page begins; None if none follows."""

    rows: list[EventRow]
    walked_to: int | None


async def read_filtered(connection: Connection, wanted: EventFilter, after: int, limit: int) -> FilteredPage:
    """Up to `limit` events after position `after` that pass, in the order of the log.

    Times come from the hosts' clocks. If clocks differ by more than an hour, a filter by time may miss events.
    """
    after, upto = await _range(connection, wanted, after)
    pages = [await _read(connection, each, after, upto, limit) for each in _by_stored_name(wanted)]
    return _merged(pages, limit)


def _by_stored_name(wanted: EventFilter) -> list[EventFilter]:
    """The filter for each name under which the wanted events are stored; older releases used older names."""
    if wanted.topic is None:
        return [wanted]
    return [msgspec.structs.replace(wanted, topic=name) for name in (wanted.topic, *names_before(wanted.topic))]


def _merged(pages: list[FilteredPage], limit: int) -> FilteredPage:
    """One page of several over the same range: it ends where the first of them ends."""
    ends = [page.walked_to for page in pages if page.walked_to is not None]
    end = min(ends, default=None)
    rows = sorted(row for page in pages for row in page.rows if end is None or row[0] <= end)
    if len(rows) >= limit:
        return FilteredPage(rows[:limit], rows[limit - 1][0])
    return FilteredPage(rows, end)


async def _read(connection: Connection, wanted: EventFilter, after: int, upto: int, limit: int) -> FilteredPage:
    walk = await _walk(connection, wanted, after, upto)
    found: list[EventRow] = []
    batch = limit
    for _ in range(0, WALKED_EVENTS, _BATCH):
        rows = await walk.next(connection, batch)
        found += [tuple(row) for row in rows if row["state"] is not None]
        if len(found) >= limit:
            return FilteredPage(found[:limit], found[limit - 1][0])
        if len(rows) < batch:
            return FilteredPage(found, None)
        batch = _BATCH
    return FilteredPage(found, walk.position)


class _Walk:
    """A walk along one index, a batch at a time. In one workspace it goes by version, else by position."""

    def __init__(self, wanted: EventFilter, *, after: int, upto: int, key: str) -> None:
        self._query = query_of(wanted)
        self._filters = msgspec.structs.asdict(wanted)
        self._after = after
        self._upto = upto
        self._key = key
        self.position = 0

    async def next(self, connection: Connection, batch: int) -> list[Any]:
        values = {**self._filters, "after": self._after, "upto": self._upto, "limit": batch}
        rows = await connection.fetch(self._query.sql, *self._query.values(values))
        if rows:
            self._after = rows[-1][self._key]
            self.position = rows[-1]["notification_id"]
        return rows


async def _range(connection: Connection, wanted: EventFilter, after: int) -> tuple[int, int]:
    """The positions between which the wanted events are: behind the first, not beyond the second."""
    upto = await complete_until(connection)
    if wanted.since is not None:
        after = max(after, await connection.fetchval(_POSITION_BEFORE, wanted.since))
    if wanted.until is not None:
        upto = min(upto, await connection.fetchval(_POSITION_UNTIL, wanted.until))
    return after, upto


async def _walk(connection: Connection, wanted: EventFilter, after: int, upto: int) -> _Walk:
    if wanted.workspace_id is None or wanted.task_id is not None:
        return _Walk(wanted, after=after, upto=upto, key="notification_id")
    version = await connection.fetchval(_VERSION_AT, wanted.workspace_id, after)
    return _Walk(wanted, after=version, upto=upto, key="originator_version")


def query_of(wanted: EventFilter) -> Composed:
    """The query along the index that leads."""
    if wanted.task_id is not None:
        return _OF_TASK
    if wanted.workspace_id is not None:
        return _IN_WORKSPACE if wanted.topic is None else _IN_WORKSPACE_OF_TOPIC
    if wanted.topic is not None:
        return _OF_TOPIC
    return _ALL if wanted.actor is None else _OF_ACTOR
