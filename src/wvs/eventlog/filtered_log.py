"""Reading the log, or one workspace's part of it, through the audit's filters: by type, actor, task and time.

One filter leads (a task before a type before an actor) and has its index; what is asked beside it is looked at event by
event of that index, `WALKED_EVENTS` at most for one page. A page may therefore be short, or empty, and still have a
next one.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.eventlog.follower import safe_position
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
    """Events that passed, in order. `walked_to` is where the next page begins; None if nothing follows yet."""

    rows: list[EventRow]
    walked_to: int | None


async def read_filtered(connection: Connection, wanted: EventFilter, after: int, limit: int) -> FilteredPage:
    """Up to `limit` events behind position `after` that pass, in the order of the log.

    Times are those that the hosts' clocks told. Where they differ by more than an hour, a filter by time may miss
    events.
    """
    walk = await _walk(connection, wanted, after)
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


async def _walk(connection: Connection, wanted: EventFilter, after: int) -> _Walk:
    upto = await safe_position(connection)
    if wanted.since is not None:
        after = max(after, await connection.fetchval(_POSITION_BEFORE, wanted.since))
    if wanted.until is not None:
        upto = min(upto, await connection.fetchval(_POSITION_UNTIL, wanted.until))
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
