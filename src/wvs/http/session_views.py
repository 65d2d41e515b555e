"""What the API shows of sessions, and what it takes from them."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from wvs.domain.ids import SESSION, WORKSPACE, format_id
from wvs.domain.values import TEXT_PATTERN, Message
from wvs.engines.paths import tree_root_path
from wvs.http.wire.ids import SessionId, WorkspaceId
from wvs.quiesce.sessions import Directive, DirectiveKind, Session, SessionState

LEASE_S: Final = 30.0

AgentName = Annotated[
    str, Meta(min_length=1, max_length=200, pattern=TEXT_PATTERN, description="What the agent is, for people.")
]
HostName = Annotated[str, Meta(min_length=1, max_length=255, pattern=TEXT_PATTERN)]
Token = Annotated[str, Meta(min_length=1, max_length=100, pattern=TEXT_PATTERN)]
Flush = Annotated[str, Meta(max_length=500, pattern=TEXT_PATTERN, description="What the flush answered: `ok`.")]


class NewSession(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent that is going to write the live tree."""

    agent: AgentName
    host: HostName
    pid: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    lease_s: Annotated[float, Meta(ge=5, le=600, description="Seconds without a word after which it shows.")] = LEASE_S


Freeze = Annotated[int, Meta(ge=1, le=2**62, description="The number of the freeze that the directive named.")]


class Frozen(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="frozen"):
    """Every process of the session stands still and what it wrote is flushed."""

    freeze: Freeze
    token: Token
    flush: Flush


class FreezeRefused(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="refused"):
    """The session cannot stop or flush; it runs on."""

    freeze: Freeze
    reason: Message


class StillFrozen(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="still_frozen"):
    """It has stood still ever since it said so under this token."""

    freeze: Freeze
    token: Token


class Switched(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="switched"):
    """The session works in the live tree of this epoch."""

    epoch: Annotated[int, Meta(ge=1, le=2**62)]


Ack: TypeAlias = Frozen | FreezeRefused | StillFrozen | Switched
"""A session's word on a freeze, or on a switch to another live tree."""


class Eviction(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Why a person answers for the session's silence."""

    reason: Message | None = None


class SessionView(Struct, frozen=True, kw_only=True):
    """A session. `lease_expired` says that it was not heard of lately; it still has to freeze, or to be evicted."""

    id: SessionId
    workspace_id: WorkspaceId
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


class DirectiveView(Struct, frozen=True, kw_only=True):
    """What a session is to do now.

    `member` is false for one that registered during the freeze. `resume` comes with `confirm`: go on as soon as you
    have looked whether you stood still, then answer; without it, answer and stand still on. `budget_s` are the seconds
    that the freeze still holds. `answer_after_s`, with `resume`: go on at once, but answer only then, because others
    were asked at the same moment. `path` is the root of the live tree of `epoch`.
    """

    number: int
    kind: DirectiveKind
    freeze: int | None
    member: bool
    resume: bool
    answer_after_s: float
    budget_s: float | None
    epoch: int
    path: str | None
    reason: str | None


class Registered(Struct, frozen=True):
    """A new session and its first directive: it must not start its work while that says `freeze`."""

    session: SessionView
    directive: DirectiveView


class SessionList(Struct, frozen=True):
    """A page of sessions, newest first."""

    items: list[SessionView]
    next_cursor: str | None


def session_view(session: Session) -> SessionView:
    """A session as the API shows it."""
    return SessionView(
        id=format_id(SESSION, session.id),
        workspace_id=format_id(WORKSPACE, session.workspace_id),
        state=session.state,
        agent=session.agent,
        host=session.host,
        pid=session.pid,
        epoch=session.epoch,
        lease_until=session.lease_until,
        lease_expired=session.lease_expired and session.state is SessionState.ACTIVE,
        reason=session.reason,
        registered_at=session.registered_at,
        ended_at=session.ended_at,
    )


def directive_view(directive: Directive, volume: Path) -> DirectiveView:
    """A directive as the API shows it; `volume` is where the volume is on its hosts."""
    tree = directive.live_tree
    workspace = format_id(WORKSPACE, directive.workspace_id)
    return DirectiveView(
        number=directive.number,
        kind=directive.kind,
        freeze=directive.freeze,
        member=directive.member,
        resume=directive.resume,
        answer_after_s=directive.answer_after_s,
        budget_s=directive.budget_s,
        epoch=directive.epoch,
        path=None if tree is None else tree_root_path(str(volume), workspace, tree),
        reason=directive.reason,
    )
