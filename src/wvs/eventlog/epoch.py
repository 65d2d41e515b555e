"""After a restore the log begins a new epoch, and no number of its lost part is assigned again."""

from typing import Final

from msgspec import Struct

from wvs.eventlog.reading.follower import log_epoch
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

FENCE_LEAP: Final = 1_000_000
"""More than the claims that one workspace can have had between the backup and the loss of the database."""

_EPOCH: Final = sql("raise_epoch")
_FENCES: Final = sql("raise_fences")
_SEQUENCE: Final = sql("raise_sequence")
_MAX: Final = sql("log_max_position")


class Raised(Struct, frozen=True):
    """The new epoch, the log's last position, and whether the sequence of positions had to be advanced to it."""

    epoch: int
    position: int
    sequence_moved: bool


async def raise_epoch(connection: Connection) -> Raised:
    """Begins a new epoch, in one transaction. Call it for a restored database while no API and no executor uses it."""
    async with connection.transaction():
        await connection.execute(_FENCES, FENCE_LEAP)
        moved = await connection.fetchval(_SEQUENCE) is not None
        await connection.fetchval(_EPOCH)
        epoch = await log_epoch(connection)
        position: int = await connection.fetchval(_MAX)
    return Raised(epoch, position, moved)
