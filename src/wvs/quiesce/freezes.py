"""The calls with which the executor opens, holds, confirms and closes a freeze of a workspace."""

from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.postgres.pool import Connection, Record
from wvs.postgres.queries import sql
from wvs.quiesce.member_details import MemberDetails

_details: Final = msgspec.json.Decoder(MemberDetails).decode
_OPEN: Final = sql("open_freeze")
_MEMBERS: Final = sql("freeze_members")
_HOLD: Final = sql("hold_freeze")
_CONFIRM: Final = sql("confirm_freeze")
_CLOSE: Final = sql("close_freeze")
_ABANDON: Final = sql("abandon_freezes")


class Holder(Protocol):
    """What opens a freeze: a running task of a workspace under a fence, such as a claim of the queue."""

    @property
    def workspace_id(self) -> UUID: ...

    @property
    def fence(self) -> int: ...

    @property
    def task_id(self) -> UUID: ...


class MemberState(StrEnum):
    """What a member of the required set has acknowledged, or how it left the set."""

    ASKED = "asked"
    FROZEN = "frozen"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    BROKEN = "broken"
    LEFT = "left"
    EVICTED = "evicted"


class FreezeMember(Struct, frozen=True):
    """One session of the required set. `expired`: the session has sent no request within its lease.

    `pid` is its process on `host`, and `details` what it added to its acknowledgements.
    """

    session_id: UUID
    state: MemberState
    token: str | None
    flush: str | None
    reason: str | None
    agent: str
    host: str
    expired: bool
    pid: int | None
    details: MemberDetails = MemberDetails()


class OpenedFreeze(Struct, frozen=True):
    """A freeze that was opened. `members` counts the sessions that have to stop."""

    number: int
    members: int


async def open_freeze(
    connection: Connection, holder: Holder, budget_s: float, looked_from: str | None
) -> OpenedFreeze | None:
    """Opens the next freeze under the holder's fence; None if a newer claim of the workspace exists.

    `looked_from` names the processes among which the caller looks for bystanders (`process_view`), or is None.
    """
    row = await connection.fetchrow(_OPEN, holder.workspace_id, holder.fence, holder.task_id, budget_s, looked_from)
    return None if row is None else OpenedFreeze(row["number"], row["members"])


async def members(connection: Connection, workspace_id: UUID, number: int) -> list[FreezeMember]:
    """The required set. It is fixed when the freeze is opened."""
    rows = await connection.fetch(_MEMBERS, workspace_id, number)
    return [_member(row) for row in rows]


async def hold(connection: Connection, workspace_id: UUID, number: int, budget_s: float) -> bool:
    """Extends the freeze to `budget_s` from now. False if it is over."""
    return await connection.fetchval(_HOLD, workspace_id, number, budget_s) is not None


async def confirm(connection: Connection, workspace_id: UUID, number: int, budget_s: float, *, resume: bool) -> bool:
    """Asks every member whether it is still frozen. False if the freeze is over.

    With `resume` each member resumes as soon as it has checked: ask with it only after the clone has ended.
    """
    return await connection.fetchval(_CONFIRM, workspace_id, number, budget_s, resume) is not None


async def close(connection: Connection, workspace_id: UUID, number: int, outcome: str) -> None:
    """Ends the freeze. Repeating it changes nothing."""
    await connection.fetchval(_CLOSE, workspace_id, number, outcome)


async def abandon(connection: Connection, workspace_id: UUID, fence: int) -> bool:
    """Ends the freeze that a former holder, with a fence up to `fence`, left open. True if there was one."""
    return await connection.fetchval(_ABANDON, workspace_id, fence) is not None


def _member(row: Record) -> FreezeMember:
    details = MemberDetails() if row["details"] is None else _details(row["details"])
    return msgspec.convert({**dict(row), "details": details}, FreezeMember)
