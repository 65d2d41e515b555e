"""Outages of the volume, as opposed to failures of one tree: a task waits for the end of an outage (design §6)."""

from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import EngineError
from wvs.executor.workbench import Workbench

AWAY_PAUSE_S: Final = 1.0
"""Seconds that a slot claims nothing after it found the volume away: executors that can use the volume claim first."""

_ORDERED: Final = frozenset({ErrorCode.CANCELLED, ErrorCode.LEASE_LOST, ErrorCode.DEADLINE_EXCEEDED})


async def why_volume_is_away(bench: Workbench, error: EngineError) -> EngineError | None:
    """The reason if this executor cannot use the volume at all; None if it can, so that `error` is about one tree.

    Every failure leads here, whatever its code: with a mount that goes away in the middle of an operation, programs of
    the engine, agents and paths fail in many ways. A failure that the executor was ordered to does not.
    """
    if error.code in _ORDERED:
        return None
    try:
        await bench.run(bench.volume.require_working)
    except EngineError as reason:
        if reason.code is ErrorCode.VOLUME_UNAVAILABLE and reason.retryable:
            return error if error.code is reason.code else reason
    return None
