"""The registry of sessions, and the directive of each, as the API serves them."""

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
from wvs.quiesce.ack_batches import AckBatches, Acknowledgement
from wvs.quiesce.secrets import SessionSecrets, hash_of, new_secret

_REGISTER: Final = sql("register_session")
_BY_ID: Final = sql("session_by_id")
_ACTIVE: Final = sql("sessions_active")
_ALL: Final = sql("sessions_all")
_RENEW_LEASE: Final = sql("renewed_directive")
_DIRECTIVE: Final = sql("directive_for")
_LAPSE: Final = sql("lapse_freeze")
_LAPSED_FROM: Final = 1_000_000_000_000
"""wvs.directive_for adds this to the number while a freeze exists whose hold has run out."""

_AFTER: Final = sql("directives_after")
_SWITCHED: Final = sql("session_switched")
_LEAVE: Final = sql("leave_session")

NEWEST: Final = UUID(int=2**128 - 1)
"""Greater than every id: the start of a list."""


class SessionState(StrEnum):
    """`ended`: the session deregistered. `evicted`: a person took it out."""

    ACTIVE = "active"
    ENDED = "ended"
    EVICTED = "evicted"


class DirectiveKind(StrEnum):
    """What a directive asks a session to do."""

    RUN = "run"
    FREEZE = "freeze"
    CONFIRM = "confirm"
    SWITCH = "switch"
    END = "end"


class RegisteredSession(Struct, frozen=True):
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
    """What a session has to do now. `number` changes whenever the rest may have changed.

    `resume` comes with `CONFIRM`: the clone has ended, so the agent may resume as soon as it has checked whether it
    stayed frozen. `answer_after_s` spreads the answers of sessions that are asked at the same moment. `looked_from`
    names the processes among which the executor of the freeze looks for bystanders.
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
    looked_from: str | None = None
    answer_after_s: float = 0.0


class Acknowledged(Struct, frozen=True):
    """An acknowledgement that was stored: the session's next directive. `settled`: the freeze waits for no member."""

    directive: Directive
    settled: bool


class Sessions:
    """The registry. It raises refusals as `Refused`. All state is in Postgres, so any API process can answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._ack_batches = AckBatches(pool)
        self._secrets = SessionSecrets(pool)

    async def register(
        self, session_id: UUID, workspace_id: UUID, agent: str, host: str, pid: int | None, lease_s: float
    ) -> tuple[RegisteredSession, str]:
        """Registers a session. Returns it with its secret, which is not stored and cannot be read again.

        Refuses `WORKSPACE_NOT_FOUND`, `WORKSPACE_DISABLED` and `WORKSPACE_NOT_ACTIVE`.
        """
        secret = new_secret()
        hashed = hash_of(secret)
        state = await self._pool.fetchval(_REGISTER, session_id, workspace_id, agent, host, pid, lease_s, hashed)
        if state is None:
            raise Refused(ErrorCode.WORKSPACE_NOT_FOUND, "There is no such workspace.")
        if state == "disabled":
            raise Refused(ErrorCode.WORKSPACE_DISABLED, "The workspace is disabled: no agent may work in it.")
        if state != "active":
            raise Refused(
                ErrorCode.WORKSPACE_NOT_ACTIVE,
                f"The workspace is {state}, not active.",
                "Wait for its init task, or run wvsctl workspace retry-init.",
            )
        self._secrets.remember(session_id, hashed)
        return await self.get(session_id), secret

    async def check_secret(self, session_id: UUID, secret: str | None) -> None:
        """Refuses `SESSION_NOT_FOUND`, and `SESSION_SECRET_INVALID` unless `secret` is the one of this session."""
        await self._secrets.check(session_id, secret)

    async def get(self, session_id: UUID) -> RegisteredSession:
        """One session; refuses `SESSION_NOT_FOUND`."""
        row = await self._pool.fetchrow(_BY_ID, session_id)
        if row is None:
            raise Refused(ErrorCode.SESSION_NOT_FOUND, "There is no such session.", "wvsctl session list")
        return msgspec.convert(dict(row), RegisteredSession)

    async def of_workspace(
        self, workspace_id: UUID, before: UUID, limit: int, *, ended: bool
    ) -> list[RegisteredSession]:
        """Up to `limit` sessions with a lower id than `before`, newest first; with `ended`, ended ones too."""
        rows = await self._pool.fetch(_ALL if ended else _ACTIVE, workspace_id, before, limit)
        return msgspec.convert([dict(row) for row in rows], list[RegisteredSession])

    async def renew_lease(self, session_id: UUID) -> Directive:
        """Renews the session's lease, because it sent a request. Returns its directive, as `directive` does."""
        return await self._resolve(session_id, await self._pool.fetchrow(_RENEW_LEASE, session_id))

    async def directive(self, session_id: UUID) -> Directive:
        """The session's current directive; refuses `SESSION_NOT_FOUND`."""
        return await self._resolve(session_id, await self._pool.fetchrow(_DIRECTIVE, session_id))

    async def _resolve(self, session_id: UUID, row: Record | None) -> Directive:
        directive = _directive(row)
        while directive.number >= _LAPSED_FROM:
            # End the freeze before any session learns that its hold ran out. A session that joined during the freeze
            # has no token with which it could show later that it began to run.
            await self._pool.execute(_LAPSE, directive.workspace_id)
            directive = _directive(await self._pool.fetchrow(_DIRECTIVE, session_id))
        self._ack_batches.remember_workspace(session_id, directive.workspace_id)
        return directive

    async def changed(self, seen: Mapping[UUID, int]) -> dict[UUID, Directive | None]:
        """The directives whose number differs from the one in `seen`, in one query for all waiting requests.

        None for a session whose freeze has lapsed: its directive has to be requested with `directive`.
        """
        rows = await self._pool.fetch(_AFTER, list(seen), list(seen.values()))
        return {row["id"]: None if row["number"] >= _LAPSED_FROM else _directive(row) for row in rows}

    async def acknowledge(self, session_id: UUID, ack: Acknowledgement) -> Acknowledged:
        """Stores an acknowledgement; refuses `SESSION_NOT_FOUND`, and `FREEZE_STALE` if no freeze waits for it."""
        row = await self._ack_batches.write(session_id, ack)
        directive = await self._resolve(session_id, row)
        if row is None or not row["taken"]:
            raise Refused(
                ErrorCode.FREEZE_STALE,
                f"Freeze {ack.freeze} does not hold this session, or does not wait for {ack.kind}.",
                "Request the directive and obey it.",
            )
        return Acknowledged(directive, row["settled"])

    async def switched(self, session_id: UUID, epoch: int) -> None:
        """Records that the session works in the live tree of `epoch`."""
        await self._pool.execute(_SWITCHED, session_id, epoch)

    async def leave(self, session_id: UUID, state: SessionState, reason: str | None = None) -> RegisteredSession:
        """Takes the session out of later freezes. A session that has left before keeps its state."""
        await self._pool.fetchval(_LEAVE, session_id, state, reason)
        return await self.get(session_id)


def _directive(row: Record | None) -> Directive:
    if row is None:
        raise Refused(ErrorCode.SESSION_NOT_FOUND, "There is no such session.", "Register again.")
    return msgspec.convert(dict(row), Directive)
