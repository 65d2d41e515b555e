"""Limits and retry policies: the numbers that the domain decides with."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from wvs.domain.states import TaskKind

QUEUE_LIMIT: Final = 100
"""Queued tasks per workspace; one more is refused with `WORKSPACE_QUEUE_FULL`."""

JITTER: Final = 0.25
"""A retry's delay varies by up to this share, so that tasks that failed together are not retried together."""

VOLUME_AWAY_BASE_S: Final = 0.5
VOLUME_AWAY_CAP_S: Final = 10.0
"""The longest pause between two attempts while the volume is away: so long may work wait after the volume is back."""


class RetryPolicy(Struct, frozen=True):
    """How often and how fast one kind of task is retried automatically, and how long one attempt may take."""

    max_attempts: int
    base_s: float
    cap_s: float
    deadline_s: float

    def delay_s(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after `attempt` (from 1) failed; `jitter` in [-1, 1] comes with the command (rule 8)."""
        return _spread(min(self.cap_s, self.base_s * 2.0 ** (attempt - 1)), jitter)


RETRY: Final[Mapping[TaskKind, RetryPolicy]] = {
    TaskKind.WORKSPACE_INIT: RetryPolicy(max_attempts=3, base_s=0.5, cap_s=30, deadline_s=300),
    TaskKind.SNAPSHOT_CREATE: RetryPolicy(max_attempts=4, base_s=0.5, cap_s=60, deadline_s=3600),
    TaskKind.CURRENT_SET: RetryPolicy(max_attempts=4, base_s=0.5, cap_s=60, deadline_s=3600),
    TaskKind.SNAPSHOT_DROP: RetryPolicy(max_attempts=6, base_s=0.5, cap_s=300, deadline_s=3600),
}


def volume_away_delay_s(away_s: float, jitter: float) -> float:
    """Seconds until the next attempt at a task whose volume has been away for `away_s`: half as long again."""
    return _spread(max(VOLUME_AWAY_BASE_S, min(VOLUME_AWAY_CAP_S, away_s / 2)), jitter)


def _spread(seconds: float, jitter: float) -> float:
    return round(seconds * (1.0 + JITTER * max(-1.0, min(1.0, jitter))), 3)
