"""Sessions and their directives, as the API serves them."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.domain.errors import ErrorCode, Refused
from wvs.postgres.pool import Pool, Record
from wvs.postgres.queries import sql
from wvs.quiesce.ack_batches import Acknowledgement, Words

_REGISTER: Final = sql("register_session")
_BY_ID: Final = sql("session_by_id")
_ACTIVE: Final = sql("sessions_active")
_ALL: Final = sql("sessions_all")
_HEARD: Final = sql("heard_directive")
_DIRECTIVE: Final = sql("directive_for")
_LAPSE: Final = sql("lapse_freeze")
_LAPSED: Final = 1_000_000_000_000
"""What wvs.directive_for adds to the number while there is a freeze whose hold ran out."""

_AFTER: Final = sql("directives_after")
_SWITCHED: Final = sql("session_switched")
_LEAVE: Final = sql("leave_session")

NEWEST: Final = UUID(int=2**128 - 1)
"""Greater than every id: where a list begins."""


class SessionState(StrEnum):
    """`ended` by its own word, `evicted` by a person's."""

    ACTIVE = "active"
    ENDED = "ended"
    EVICTED = "evicted"


class DirectiveKind(StrEnum):
    """What a session is to do."""

    RUN = "run"
    FREEZE = "freeze"
    CONFIRM = "confirm"
    SWITCH = "switch"
    END = "end"


class Session(Struct, frozen=True):
    """One registered agent."""

    id: UUID
    workspace_id: UUID
    state: SessionState
    agent: str
    host: str
    pid: int | None
    epoch: int
    lease_until: datetime
    lease_expired: bool
    reason: str | None
    registered_at: datetime
    ended_at: datetime | None


class Directive(Struct, frozen=True):
    """What a session is to do now; `number` changes whenever the answer may have changed.

    `resume`, with `CONFIRM`: it may go on as soon as it has looked, because the clone has ended. `answer_after_s`
    spreads the answers of those who are told at once.
    """

    workspace_id: UUID
    number: int
    kind: DirectiveKind
    freeze: int | None
    member: bool
    resume: bool
    budget_s: float | None
    epoch: int
    live_tree: str | None
    reason: str | None
    answer_after_s: float = 0.0


class Taken(Struct, frozen=True):
    """A word that was taken: what the session is to do now, and whether the freeze has nobody left to wait for."""

    directive: Directive
    settled: bool


class Sessions:
    """The registry. Refusals are raised as `Refused`; everything is in Postgres, so any API process can answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._words = Words(pool)

    async def register(
        self, session_id: UUID, workspace_id: UUID, agent: str, host: str, pid: int | None, lease_s: float
    ) -> Session:
        """Registers; refuses `WORKSPACE_NOT_FOUND`, `WORKSPACE_DISABLED`, `WORKSPACE_NOT_ACTIVE`."""
        state = await self._pool.fetchval(_REGISTER, session_id, workspace_id, agent, host, pid, lease_s)
        if state is None:
            raise Refused(ErrorCode.WORKSPACE_NOT_FOUND, "There is no such workspace.")
        if state == "disabled":
            raise Refused(ErrorCode.WORKSPACE_DISABLED, "The workspace is disabled; no agent works in it any more.")
        if state != "active":
            raise Refused(
                ErrorCode.WORKSPACE_NOT_ACTIVE,
                f"The workspace is {state}, not active.",
                "Wait for its init task, or run wvsctl workspace retry-init.",
            )
        return await self.get(session_id)

    async def get(self, session_id: UUID) -> Session:
        """One session; refuses `SESSION_NOT_FOUND`."""
        row = await self._pool.fetchrow(_BY_ID, session_id)
        if row is None:
            raise Refused(ErrorCode.SESSION_NOT_FOUND, "There is no such session.", "wvsctl session list")
        return msgspec.convert(dict(row), Session)

    async def of_workspace(self, workspace_id: UUID, before: UUID, limit: int, *, ended: bool) -> list[Session]:
        """Up to `limit` sessions with a lesser id than `before`, newest first; with `ended`, those that ended too."""
        rows = await self._pool.fetch(_ALL if ended else _ACTIVE, workspace_id, before, limit)
        return msgspec.convert([dict(row) for row in rows], list[Session])

    async def heard(self, session_id: UUID) -> Directive:
        """The session was heard of: its lease begins anew. Answers what it is to do now, as `directive`."""
        return await self._valid(session_id, await self._pool.fetchrow(_HEARD, session_id))

    async def directive(self, session_id: UUID) -> Directive:
        """What the session is to do now; refuses `SESSION_NOT_FOUND`."""
        return await self._valid(session_id, await self._pool.fetchrow(_DIRECTIVE, session_id))

    async def _valid(self, session_id: UUID, row: Record | None) -> Directive:
        found = _directive(row)
        while found.number >= _LAPSED:
            # Over for good before anybody hears of it: who joined in mid-freeze has no token to tell that it began.
            await self._pool.execute(_LAPSE, found.workspace_id)
            found = _directive(await self._pool.fetchrow(_DIRECTIVE, session_id))
        self._words.remember(session_id, found.workspace_id)
        return found

    async def changed(self, seen: Mapping[UUID, int]) -> dict[UUID, Directive | None]:
        """The directives that are others than the ones `seen`, in one query for all who wait.

        None for a session whose freeze has lapsed: it has to ask for its directive.
        """
        rows = await self._pool.fetch(_AFTER, list(seen), list(seen.values()))
        return {row["id"]: None if row["number"] >= _LAPSED else _directive(row) for row in rows}

    async def acknowledge(self, session_id: UUID, word: Acknowledgement) -> Taken:
        """Takes a session's word; refuses `SESSION_NOT_FOUND`, and `FREEZE_STALE` if no freeze waits for it."""
        row = await self._words.write(session_id, word)
        directive = await self._valid(session_id, row)
        if row is None or not row["taken"]:
            raise Refused(
                ErrorCode.FREEZE_STALE,
                f"Freeze {word.freeze} does not hold this session, or is not waiting for {word.kind}.",
                "Ask for the directive and follow that.",
            )
        return Taken(directive, row["settled"])

    async def switched(self, session_id: UUID, epoch: int) -> None:
        """The session works in the live tree of `epoch` now."""
        await self._pool.execute(_SWITCHED, session_id, epoch)

    async def leave(self, session_id: UUID, state: SessionState, reason: str | None = None) -> Session:
        """Takes the session out of later freezes; one that left already stays as it left."""
        await self._pool.fetchval(_LEAVE, session_id, state, reason)
        return await self.get(session_id)


def _directive(row: Record | None) -> Directive:
    if row is None:
        raise Refused(ErrorCode.SESSION_NOT_FOUND, "There is no such session.", "Register again.")
    return msgspec.convert(dict(row), Directive)
