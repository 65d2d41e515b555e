"""Claims and leases of lanes, each a single call on the holder's own connection.

Three guards, each with its own job (design §6): the advisory lock of the connection shows that the holder is alive,
the lease bounds a holder that hangs, and the fence makes both safe, because every later write names it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.domain.policy import RETRY
from wvs.domain.states import TaskKind
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

FULL_SCAN_EVERY: Final = 64
"""Every so many claims scan the whole index; the others begin where the last one found a lane."""

DEADLINES_S: Final[Mapping[TaskKind, float]] = {kind: policy.deadline_s for kind, policy in RETRY.items()}

_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_CLAIM: Final = sql("claim_task")
_RENEW: Final = sql("renew_lease")
_REAP: Final = sql("reap_lanes")
_RELEASE: Final = sql("release_lane")
_PARK: Final = sql("park_lane")


class Claim(Struct, frozen=True):
    """A task that this process may run, under `fence`, while its connection and its lease last.

    `took_over`: an earlier holder was running the task. `overdue`: that holder was alive at the task's deadline
    and did not end the attempt. `link_pending`: the switch of an earlier task has not ended. `waited_s`: the
    seconds since the task was queued.
    """

    workspace_id: UUID
    lane_no: int
    fence: int
    task_id: UUID
    kind: TaskKind
    took_over: bool
    overdue: bool
    link_pending: bool
    request_id: str | None
    traceparent: str | None
    idempotency_key: str | None
    waited_s: float


class Order(StrEnum):
    """What the holder has to do, as the answer to a renewal."""

    GO_ON = "go_on"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    ENDED = "ended"
    """The task has ended, through this holder or before it began. The holder still has to clean up."""
    STALE = "stale"


class TaskProgress(Struct, frozen=True):
    """How far a task has come. Totals are None until they are known."""

    phase: str
    files_done: int = 0
    files_total: int | None = None
    bytes_done: int = 0
    bytes_total: int | None = None


class Reaped(Struct, frozen=True):
    """A lane taken from a holder. `reason`: `holder_gone` (its connection ended) or `lease_over` (it hangs)."""

    workspace_id: UUID
    task_id: UUID
    fence: int
    executor: str | None
    reason: str


class LaneCursor:
    """Where the next scan of ready lanes begins: below it are the dead index entries of claimed lanes.

    docs/measurements.md#claiming-from-the-queue has what they cost.
    """

    def __init__(self) -> None:
        self._after = _BEGINNING
        self._claims = 0

    def start(self) -> datetime:
        """The lower bound of the next scan. At times the beginning of the index, so that no lane is overlooked."""
        self._claims += 1
        return _BEGINNING if self._claims % FULL_SCAN_EVERY == 1 else self._after

    def advance(self, ready_at: datetime) -> None:
        """Moves the bound to a lane that was just claimed."""
        self._after = ready_at

    def reset(self) -> None:
        """Moves the bound to the beginning, because no lane above it is ready."""
        self._after = _BEGINNING


async def claim(
    connection: Connection,
    executor: str,
    lease_s: float,
    cursor: LaneCursor,
    deadlines_s: Mapping[TaskKind, float] = DEADLINES_S,
) -> Claim | None:
    """Claims the lane that has been ready longest. None if no lane is ready.

    The advisory lock is taken on `connection`, which must not belong to a pool: a pool releases the lock on return.
    """
    row = await connection.fetchrow(_CLAIM, executor, lease_s, msgspec.json.encode(deadlines_s), cursor.start())
    if row is None:
        cursor.reset()
        return None
    cursor.advance(row["ready_at"])
    return msgspec.convert(dict(row), Claim)


async def renew(
    connection: Connection, held: Claim, lease_s: float | None = None, progress: TaskProgress | None = None
) -> Order:
    """Renews the lease to `lease_s` seconds from now and stores progress. A stale fence changes nothing."""
    encoded = None if progress is None else msgspec.json.encode(progress)
    answer = await connection.fetchval(_RENEW, held.workspace_id, held.fence, held.task_id, lease_s, encoded)
    return Order(answer)


async def release(connection: Connection, held: Claim) -> bool:
    """Releases the advisory lock. True if the lane has a next task that can be claimed now.

    The command that ended the task has freed the lane itself.
    """
    ready: bool = await connection.fetchval(_RELEASE, held.workspace_id, held.lane_no)
    return ready


async def park(connection: Connection, held: Claim, seconds: float) -> None:
    """Prevents a takeover for `seconds`, for a claim whose task its holder cannot end."""
    await connection.execute(_PARK, held.workspace_id, held.fence, seconds)


async def reap(connection: Connection) -> list[Reaped]:
    """Frees the lanes of holders that are gone or hang; returns them."""
    return [Reaped(**dict(row)) for row in await connection.fetch(_REAP)]
