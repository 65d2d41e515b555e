"""The brake: a sweep that finds unusually many trees lost or unknown marks none of them, until a person decides.

So many at once are seldom lost one by one. More often the volume is the wrong one, or a part of it is not mounted.
"""

from typing import Final

import structlog
from msgspec import Struct

from wvs.postgres.pool import Pool
from wvs.postgres.queries import sql

BRAKE_LEAST: Final = 3
"""Trees that a sweep may mark lost, and as many that it may quarantine, on the smallest volume."""
BRAKE_SHARE: Final = 0.05
"""The same as a share of the trees that must exist; the greater number counts."""

_COUNT_TREES: Final = sql("log_tree_count")
_HELD: Final = sql("volume_brake")
_HOLD: Final = sql("hold_volume_brake")
_RELEASE: Final = sql("release_volume_brake")

log = structlog.get_logger(__name__)


class Brake(Struct, frozen=True):
    """What a sweep found: lost and unknown directories, and how many trees must exist."""

    lost: int
    unknown: int
    trees: int

    @property
    def limit(self) -> int:
        return max(BRAKE_LEAST, int(self.trees * BRAKE_SHARE))

    @property
    def holds(self) -> bool:
        return max(self.lost, self.unknown) > self.limit


async def brake_for(pool: Pool, lost: int, unknown: int) -> Brake:
    """The brake for a sweep that found these numbers."""
    return Brake(lost, unknown, await pool.fetchval(_COUNT_TREES))


async def keep_brake(pool: Pool, brake: Brake) -> None:
    """Records in the database whether the brake holds, for every API and executor, and logs if it does."""
    if brake.holds:
        await pool.execute(_HOLD, brake.lost, brake.unknown, brake.trees)
        log.error(
            "volume_brake_holds",
            lost=brake.lost,
            unknown=brake.unknown,
            trees=brake.trees,
            limit=brake.limit,
            hint="nothing was marked lost or quarantined; read: wvs runbook volume-losses",
        )
    elif await is_brake_held(pool):
        await pool.execute(_RELEASE)
        log.warning("volume_brake_released")


async def is_brake_held(pool: Pool) -> bool:
    """Whether the brake of the volume holds."""
    return await pool.fetchrow(_HELD) is not None
