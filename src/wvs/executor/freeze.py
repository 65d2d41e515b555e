"""One freeze around a clone: opened under the claim, thawed on every way out (design §7).

A workspace without sessions freezes vacuously: nobody has to stop, the stamps still decide, and the certificate says
so.
"""

import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.domain.values import Certificate, Member
from wvs.engines.base import Stamp
from wvs.engines.errors import EngineError
from wvs.executor.workbench import Job
from wvs.postgres.queries import sql

_OPEN: Final = sql("open_freeze")


class Freeze:
    """Freeze number `number` of a workspace, with the members that stand still."""

    def __init__(self, number: int, members: tuple[Member, ...]) -> None:
        self.number = number
        self.members = members
        self.frozen_at = datetime.now(UTC)
        self.resumed_at: datetime | None = None

    def resumed(self) -> None:
        """Everybody runs again, from now on; only the first call counts."""
        self.resumed_at = self.resumed_at or datetime.now(UTC)

    @property
    def seconds(self) -> float:
        """How long agents stood still, until now if they still do."""
        return ((self.resumed_at or datetime.now(UTC)) - self.frozen_at).total_seconds()

    def certificate(self, before: Stamp, after: Stamp, engine: str) -> Certificate:
        """The proof, to be stored with the event."""
        return Certificate(
            freeze=self.number,
            vacuous=not self.members,
            members=self.members,
            stamp_before=before.value,
            stamp_after=after.value,
            engine=engine,
            frozen_at=self.frozen_at,
            resumed_at=self.resumed_at or datetime.now(UTC),
        )


@contextlib.asynccontextmanager
async def frozen(job: Job) -> AsyncGenerator[Freeze]:
    """A freeze that holds within the block; raises `EngineError` (LEASE_LOST) if the claim holds no longer."""
    claim = job.claim
    async with job.bench.path.pool.acquire() as connection:
        number = await connection.fetchval(_OPEN, claim.workspace_id, claim.fence, claim.task_id)
    if number is None:
        raise EngineError(ErrorCode.LEASE_LOST, "a newer claim exists", retryable=True)
    freeze = Freeze(number, members=())
    outcome = "broken"
    try:
        yield freeze
        outcome = "frozen"
    finally:
        freeze.resumed()
        job.bench.metrics.quiesce_duration_seconds.labels(outcome=outcome).observe(freeze.seconds)
        job.bench.metrics.freeze_seconds.observe(freeze.seconds)
