"""The log as it is stored, for an audit: bytes, hashes and columns, and the heads of the chains."""

from typing import Final
from uuid import UUID

from msgspec import Struct

from wvs.postgres.pool import Connection, Record
from wvs.postgres.queries import sql

_CHAIN: Final = sql("chain_page")
_BETWEEN: Final = sql("stored_events_between")
_HEADS: Final = sql("chain_heads")

FIRST: Final = UUID(int=0)
"""The start of the list of heads: below every id."""


class ChainHead(Struct, frozen=True):
    """The end of a workspace's chain according to its stream's row; None if there is no such row."""

    workspace_id: UUID
    version: int | None
    hash: bytes | None


class ChainPage(Struct, frozen=True):
    """A part of one workspace's chain, and its head at the same moment."""

    head: ChainHead
    rows: list[Record]


async def read_chain(connection: Connection, workspace_id: UUID, after_version: int, limit: int) -> ChainPage:
    """Up to `limit` events of one workspace behind a version, in the order of versions; all are committed."""
    rows = await connection.fetch(_CHAIN, workspace_id, after_version, limit)
    head = ChainHead(workspace_id, rows[0]["head_version"], rows[0]["head_hash"])
    return ChainPage(head, [row for row in rows if row["originator_version"] is not None])


async def read_stored(connection: Connection, after: int, upto: int, limit: int) -> list[Record]:
    """Up to `limit` events after position `after` and up to `upto`, in the order of the log."""
    return await connection.fetch(_BETWEEN, after, upto, limit)


async def read_heads(connection: Connection, after: UUID, limit: int) -> list[ChainHead]:
    """Up to `limit` heads in the order of ids, of every workspace that has a stream or a row in the read model."""
    return [ChainHead(*row) for row in await connection.fetch(_HEADS, after, limit)]
