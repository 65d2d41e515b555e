"""Reads one workspace's part of the log."""

from typing import Final
from uuid import UUID

from wvs.eventlog.reading.filtered_log import EventRow
from wvs.eventlog.reading.follower import Page, complete_until, last_committed
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

_VERSION_AT: Final = sql("workspace_version_at")
_BETWEEN: Final = sql("workspace_events_between")
_EVENT: Final = sql("workspace_event")


async def read_workspace_page(connection: Connection, workspace_id: UUID, after: int, limit: int) -> Page:
    """Up to `limit` stored events of one workspace after position `after`, in order.

    The page ends at a position that is safe for the whole log: a reader that continues there with the events of all
    workspaces misses none. So a reader of a silent workspace moves on with the events of the others.
    """
    until = await complete_until(connection)
    if until <= after:
        return Page([], after)
    version = await connection.fetchval(_VERSION_AT, workspace_id, after)
    rows = [tuple(row) for row in await connection.fetch(_BETWEEN, workspace_id, version, until, limit)]
    if len(rows) == limit:
        return Page(rows, rows[-1][0])
    return Page(rows, max(after, await last_committed(connection, until)))


async def read_stored_event(connection: Connection, workspace_id: UUID, version: int) -> EventRow | None:
    """Event `version` of a workspace; None if the workspace has fewer events."""
    row = await connection.fetchrow(_EVENT, workspace_id, version)
    return None if row is None else tuple(row)
