"""One freeze as the executor drives it: opened, held, confirmed, closed. Every call names workspace and number."""

from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

_OPEN: Final = sql("open_freeze")
_MEMBERS: Final = sql("freeze_members")
_HOLD: Final = sql("hold_freeze")
_CONFIRM: Final = sql("confirm_freeze")
_CLOSE: Final = sql("close_freeze")
_ABANDON: Final = sql("abandon_freezes")


class Holder(Protocol):
    """Whoever opens a freeze: a running task of a workspace under a fence, such as a claim of the queue."""

    @property
    def workspace_id(self) -> UUID: ...

    @property
    def fence(self) -> int: ...

    @property
    def task_id(self) -> UUID: ...


class MemberState(StrEnum):
    """What a member of the required set has said, or what became of it."""

    ASKED = "asked"
    FROZEN = "frozen"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    BROKEN = "broken"
    LEFT = "left"
    EVICTED = "evicted"


class FreezeMember(Struct, frozen=True):
    """One session of the required set; `expired` says that it was not heard of within its lease."""

    session_id: UUID
    state: MemberState
    token: str | None
    flush: str | None
    reason: str | None
    agent: str
    host: str
    expired: bool


class Opened(Struct, frozen=True):
    """A freeze that was opened, and how many sessions have to stop for it."""

    number: int
    members: int


async def open_freeze(connection: Connection, holder: Holder, budget_s: float) -> Opened | None:
    """Opens the next freeze under the holder's fence; None if a newer claim of the workspace exists."""
    row = await connection.fetchrow(_OPEN, holder.workspace_id, holder.fence, holder.task_id, budget_s)
    return None if row is None else Opened(row["number"], row["members"])


async def members(connection: Connection, workspace_id: UUID, number: int) -> list[FreezeMember]:
    """The required set, which is fixed when the freeze is opened."""
    rows = await connection.fetch(_MEMBERS, workspace_id, number)
    return msgspec.convert([dict(row) for row in rows], list[FreezeMember])


async def hold(connection: Connection, workspace_id: UUID, number: int, budget_s: float) -> bool:
    """Lets the freeze last `budget_s` from now; False if it is over."""
    return await connection.fetchval(_HOLD, workspace_id, number, budget_s) is not None


async def confirm(connection: Connection, workspace_id: UUID, number: int, budget_s: float, *, resume: bool) -> bool:
    """Asks every member whether it still is frozen; False if the freeze is over.

    With `resume` each of them goes on as soon as it has looked: to be asked only when the clone has ended.
    """
    return await connection.fetchval(_CONFIRM, workspace_id, number, budget_s, resume) is not None


async def close(connection: Connection, workspace_id: UUID, number: int, outcome: str) -> None:
    """Ends the freeze; repeating it changes nothing."""
    await connection.fetchval(_CLOSE, workspace_id, number, outcome)


async def abandon(connection: Connection, workspace_id: UUID, fence: int) -> bool:
    """Ends what a holder up to `fence`, which is gone, left open; True if there was something."""
    return await connection.fetchval(_ABANDON, workspace_id, fence) is not None
