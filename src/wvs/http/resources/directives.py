"""Directives: what a session must do now, and its acknowledgements."""

import asyncio
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Annotated, Final, TypeAlias, assert_never
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, Struct
from msgspec.structs import replace

from wvs.domain.errors import ErrorCode
from wvs.domain.values import TEXT_PATTERN, FrozenProcesses, Reason
from wvs.http.openapi.examples import LIVE_PATH, TREE_NAME, Examples
from wvs.http.openapi.responses import problem_responses
from wvs.http.requests.paths import SessionPath
from wvs.http.resources.own_session import OF_OWN_SESSION, OWN_SESSION_PROBLEMS, SessionSecret, own_session
from wvs.http.service import Service
from wvs.http.wire.tree_paths import live_root
from wvs.quiesce.ack_batches import AckKind, Acknowledgement
from wvs.quiesce.member_details import MAX_MOUNTS, HiddenMount, HostLook, MemberDetails, SeenProcess
from wvs.quiesce.sessions import Directive, DirectiveKind

Token = Annotated[str, Meta(min_length=1, max_length=100, pattern=TEXT_PATTERN)]
Flush = Annotated[str, Meta(max_length=500, pattern=TEXT_PATTERN, description="The result of the flush, such as `ok`.")]
Freeze = Annotated[int, Meta(ge=1, le=2**62, description="The number of the freeze that the directive named.")]


_ONE: Final = "/v1/sessions/{session:str}"
_MAX_DIRECTIVE_NUMBER: Final = 10**15
"""Larger than every directive's number. One query sends the numbers of all waiting sessions to Postgres, and a number
outside its range would fail that query for all of them."""

_After: TypeAlias = Annotated[
    int | None,
    QueryParameter(
        ge=0,
        le=_MAX_DIRECTIVE_NUMBER,
        description="The number of the last directive that the session has received.",
        schema_extra={"minimum": 0},  # Litestar treats 0 as no minimum
    ),
]
_Wait: TypeAlias = Annotated[
    float,
    QueryParameter(
        ge=0, le=60, description="Seconds to wait for a newer directive, at most `WVS_MAX_WAIT_S`, by default 50."
    ),
]


class Frozen(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="frozen"):
    """Every process of the session is stopped, and its data is flushed.

    `frozen` names what was stopped. `hidden_mounts` are other filesystems in the live tree, as the session's processes
    see it: a clone does not contain them. `bystanders` are processes on this host that hold the live tree and do not
    belong to the session. The certificate shows all of these; a session that cannot tell leaves them out.
    """

    freeze: Freeze
    token: Token
    flush: Flush
    frozen: FrozenProcesses | None = None
    hidden_mounts: Annotated[tuple[HiddenMount, ...], Meta(max_length=MAX_MOUNTS)] = ()
    bystanders: HostLook | None = None


class FreezeRefused(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="refused"):
    """The session cannot stop or cannot flush. It continues to run."""

    freeze: Freeze
    reason: Reason


class StillFrozen(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="still_frozen"):
    """The session has been stopped without interruption since it acknowledged the freeze under this token.

    `hidden_mounts` and `bystanders` as in the acknowledgement of the freeze; these replace those.
    """

    freeze: Freeze
    token: Token
    hidden_mounts: Annotated[tuple[HiddenMount, ...], Meta(max_length=MAX_MOUNTS)] = ()
    bystanders: HostLook | None = None


class Switched(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="switched"):
    """The session works in the live tree of this epoch."""

    epoch: Annotated[int, Meta(ge=1, le=2**62)]


Ack: TypeAlias = Frozen | FreezeRefused | StillFrozen | Switched
"""A session's acknowledgement of a freeze, or of a switch to another live tree."""


class DirectiveView(Struct, frozen=True, kw_only=True):
    """What a session must do now.

    `member` is false for a session that registered during the freeze. `resume` can come with `confirm`: check that the
    processes stayed stopped, resume them, then acknowledge. Without `resume`, acknowledge and keep them stopped.
    `budget_s`: seconds for which the freeze still holds. `answer_after_s`, with `resume`: resume at once, but send the
    acknowledgement only after these seconds, because other sessions resume at the same moment. `path` is the root of
    the live tree, the same for every tree; `tree` is the name of the tree of `epoch`. The file `name` beside the root
    has the name of the tree that is at the path now.
    `looked_from` names the boot and the PID namespace in which the executor looks for bystanders: a session that
    runs there too need not look itself.
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
    tree: str | None
    reason: str | None
    looked_from: str | None


@get(
    f"{_ONE}/directive",
    operation_id="getDirective",
    responses=problem_responses(*OWN_SESSION_PROBLEMS),
)
async def get_directive(
    session: SessionPath,
    service: NamedDependency[Service],
    secret: SessionSecret = None,
    after: _After = None,
    wait: _Wait = 0,
) -> DirectiveView:
    """Answers with the session's current directive.

    If its number equals `after`, waits until a newer directive exists, but at most `wait` seconds. Every call renews
    the session's lease.
    """
    session_id = await own_session(service, session, secret)
    return await _directive_after(service, session_id, after, wait, service.sessions.renew_lease(session_id))


@post(
    f"{_ONE}/acks",
    status_code=200,
    operation_id="acknowledge",
    responses=problem_responses(*OWN_SESSION_PROBLEMS, ErrorCode.FREEZE_STALE),
)
async def acknowledge(
    session: SessionPath,
    data: JSONBody[Ack],
    service: NamedDependency[Service],
    secret: SessionSecret = None,
    after: _After = None,
    wait: _Wait = 0,
) -> DirectiveView:
    """Records the session's acknowledgement of a freeze or of a switch, and answers with its next directive.

    If the number of that directive equals `after`, waits until a newer one exists, but at most `wait` seconds. The
    acknowledgement takes effect before the wait.
    """
    session_id = await own_session(service, session, secret)
    return await _directive_after(service, session_id, after, wait, _apply(service, session_id, data))


async def _apply(service: Service, session_id: UUID, data: Ack) -> Directive:
    match data:
        case Switched():
            await service.sessions.switched(session_id, data.epoch)
            return await service.sessions.directive(session_id)
        case Frozen() | FreezeRefused() | StillFrozen():
            taken = await service.sessions.acknowledge(session_id, _acknowledgement(data))
            if taken.settled:
                service.on_acknowledged()
            return taken.directive
        case _:
            assert_never(data)


def _acknowledgement(ack: Frozen | FreezeRefused | StillFrozen) -> Acknowledgement:
    match ack:
        case FreezeRefused():
            return Acknowledgement(AckKind.REFUSED, ack.freeze, reason=ack.reason)
        case Frozen():
            details = MemberDetails(ack.frozen, ack.bystanders, ack.hidden_mounts)
            return Acknowledgement(AckKind.FROZEN, ack.freeze, ack.token, ack.flush, details=details)
        case StillFrozen():
            details = MemberDetails(bystanders=ack.bystanders, hidden_mounts=ack.hidden_mounts)
            return Acknowledgement(AckKind.STILL_FROZEN, ack.freeze, ack.token, details=details)
        case _:
            assert_never(ack)


async def _directive_after(
    service: Service, session_id: UUID, after: int | None, wait_s: float, first: Awaitable[Directive]
) -> DirectiveView:
    """The directive of `first`. If its number is `after`, the next one that appears within `wait_s` seconds."""
    if after is None or wait_s <= 0:
        return _view(service, await first)
    with service.directive_waiter.watching(session_id, after) as changed:
        directive = await first
        if directive.number != after:
            return _view(service, directive)
        await asyncio.wait({changed}, timeout=min(wait_s, service.max_wait_s))
        has_changed = changed.done() and not changed.cancelled()
        if has_changed and (newest := changed.result()) is not None:
            return _view(service, newest)
        if not has_changed and directive.budget_s is None:
            return _view(service, directive)  # only `budget_s` changes with time
    return _view(service, await service.sessions.directive(session_id))


def _view(service: Service, directive: Directive) -> DirectiveView:
    return directive_view(directive, service.volume)


def directive_view(directive: Directive, volume: Path) -> DirectiveView:
    """A directive as the API shows it; `volume` is the volume's directory on its hosts."""
    tree = directive.live_tree
    return DirectiveView(
        number=directive.number,
        kind=directive.kind,
        freeze=directive.freeze,
        member=directive.member,
        resume=directive.resume,
        answer_after_s=directive.answer_after_s,
        budget_s=directive.budget_s,
        epoch=directive.epoch,
        path=None if tree is None else live_root(volume, directive.workspace_id),
        tree=tree,
        reason=directive.reason,
        looked_from=directive.looked_from,
    )


HANDLERS: Final = [get_directive, acknowledge]

EXAMPLE_DIRECTIVE: Final = DirectiveView(
    number=1,
    kind=DirectiveKind.RUN,
    freeze=None,
    member=False,
    resume=False,
    answer_after_s=0.0,
    budget_s=None,
    epoch=1,
    path=LIVE_PATH,
    tree=TREE_NAME,
    reason=None,
    looked_from=None,
)
_EXAMPLE_FREEZE: Final = replace(
    EXAMPLE_DIRECTIVE, number=2, kind=DirectiveKind.FREEZE, freeze=1, member=True, budget_s=9.9
)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "getDirective": Examples(
        {200: {"run": EXAMPLE_DIRECTIVE, "freeze": _EXAMPLE_FREEZE}},
        parameters={**OF_OWN_SESSION, "after": 1, "wait": 30},
    ),
    "acknowledge": Examples(
        {200: {"the next directive": EXAMPLE_DIRECTIVE}},
        {
            "frozen": Frozen(1, "b0f6c0de.1.1", "ok"),
            "frozen, with what it saw": Frozen(
                1,
                "b0f6c0de.1.1",
                "ok",
                FrozenProcesses("cgroup", "wvs-sess_01h455vb4pex5vsknk084sn02q", 7),
                (HiddenMount("build", "tmpfs"),),
                HostLook(1, (SeenProcess(4711, "vim main.c", ("working directory",), "/user.slice", (4700, 1)),)),
            ),
            "refused": FreezeRefused(1, "a process is in uninterruptible sleep"),
            "still frozen": StillFrozen(1, "b0f6c0de.1.1"),
            "switched": Switched(2),
        },
        {**OF_OWN_SESSION, "after": 1, "wait": 1},
    ),
}
