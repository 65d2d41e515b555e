"""Decoded events of the log, for tests that need more than stored rows."""

from msgspec import Struct

from wvs.eventlog.codec import EventMapper, RecordedEvent, StoredEvent
from wvs.eventlog.reading.follower import decode_at, read_page
from wvs.postgres.pool import Connection


class Positioned(Struct, frozen=True):
    """An event with its position in the order of the whole log, and its hash."""

    position: int
    recorded: RecordedEvent
    hash: bytes


async def read_events(connection: Connection, mapper: EventMapper, after: int, limit: int) -> list[Positioned]:
    """The events of one page, decoded; raises `UnknownEventError` at the first that cannot be decoded."""
    page = await read_page(connection, after, limit)
    return [
        Positioned(position, decode_at(mapper, position, StoredEvent(workspace_id, version, topic, state)), digest)
        for position, workspace_id, version, topic, state, digest in page.rows
    ]
