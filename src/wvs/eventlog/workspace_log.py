"""Reading one workspace's part of the log by positions of the whole log."""

from typing import Final
from uuid import UUID

from wvs.eventlog.follower import Page, safe_position
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

_VERSION_AT: Final = sql("workspace_version_at")
_BETWEEN: Final = sql("workspace_events_between")


async def read_workspace_page(connection: Connection, workspace_id: UUID, after: int, limit: int) -> Page:
    """Up to `limit` stored events of one workspace behind position `after`, in order.

    It ends at the position that is safe for the whole log: whoever goes on from there with all workspaces' events
    misses nothing.
    """
    safe = await safe_position(connection)
    if safe <= after:
        return Page([], after)
    version = await connection.fetchval(_VERSION_AT, workspace_id, after)
    rows = await connection.fetch(_BETWEEN, workspace_id, version, safe, limit)
    return Page([tuple(row) for row in rows], rows[-1][0] if len(rows) == limit else safe)
