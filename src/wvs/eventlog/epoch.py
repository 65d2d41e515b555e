"""After a restore: the log begins a new epoch, and no number of the lost part is given out again."""

from typing import Final

from msgspec import Struct

from wvs.eventlog.reading.follower import log_epoch
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

FENCE_LEAP: Final = 1_000_000
"""More claims than one workspace can have had between a backup and the end of what was lost."""

_EPOCH: Final = sql("raise_epoch")
_FENCES: Final = sql("raise_fences")
_SEQUENCE: Final = sql("raise_sequence")
_MAX: Final = sql("log_max_position")


class Raised(Struct, frozen=True):
    """The new epoch, the log's last position, and whether the sequence had to be put behind it."""

    epoch: int
    position: int
    sequence_moved: bool


async def raise_epoch(connection: Connection) -> Raised:
    """Begins a new epoch, in one transaction. Meant for a restored database that nobody works on."""
    async with connection.transaction():
        await connection.execute(_FENCES, FENCE_LEAP)
        moved = await connection.fetchval(_SEQUENCE) is not None
        await connection.fetchval(_EPOCH)
        epoch = await log_epoch(connection)
        position: int = await connection.fetchval(_MAX)
    return Raised(epoch, position, moved)
