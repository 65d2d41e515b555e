"""The log as it is stored, for whoever checks it: bytes, hashes and columns, and the heads that the chains end at."""

from typing import Final
from uuid import UUID

from msgspec import Struct

from wvs.postgres.pool import Connection, Record
from wvs.postgres.queries import sql

_CHAIN: Final = sql("chain_page")
_BETWEEN: Final = sql("stored_events_between")
_HEADS: Final = sql("chain_heads")

FIRST: Final = UUID(int=0)
"""Where the heads begin: below every id."""


class ChainHead(Struct, frozen=True):
    """Where a workspace's chain ends according to its stream's row; None where it has none."""

    workspace_id: UUID
    version: int | None
    hash: bytes | None


class ChainPage(Struct, frozen=True):
    """A piece of one workspace's chain, and its head as of the same moment."""

    head: ChainHead
    rows: list[Record]


async def read_chain(connection: Connection, workspace_id: UUID, after_version: int, limit: int) -> ChainPage:
    """Up to `limit` events of one workspace behind a version, committed ones all, in the order of versions."""
    rows = await connection.fetch(_CHAIN, workspace_id, after_version, limit)
    head = ChainHead(workspace_id, rows[0]["head_version"], rows[0]["head_hash"])
    return ChainPage(head, [row for row in rows if row["originator_version"] is not None])


async def read_stored(connection: Connection, after: int, upto: int, limit: int) -> list[Record]:
    """Up to `limit` events behind position `after` and not beyond `upto`, in the order of the log."""
    return await connection.fetch(_BETWEEN, after, upto, limit)


async def read_heads(connection: Connection, after: UUID, limit: int) -> list[ChainHead]:
    """Up to `limit` heads, by the workspaces' ids: of every workspace that a stream or the read model knows."""
    return [ChainHead(*row) for row in await connection.fetch(_HEADS, after, limit)]
