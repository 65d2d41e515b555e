"""Sessions: register, follow directives, answer to freezes, leave, evict."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Final, TypeAlias, assert_never
from uuid import UUID

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from wvs.domain.commands import EvictSession
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.ids import SESSION, InvalidId, parse_id
from wvs.eventlog.recorder import Show
from wvs.http.openapi.responses import problem_responses
from wvs.http.requests.paths import WorkspacePath
from wvs.http.resources.answers import OPTIONAL_KEY_PROBLEMS
from wvs.http.service import Service, new_id
from wvs.http.session_views import (
    Ack,
    DirectiveView,
    Eviction,
    FreezeRefused,
    Frozen,
    NewSession,
    Registered,
    SessionList,
    SessionView,
    StillFrozen,
    Switched,
    directive_view,
    session_view,
)
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit, decode_cursor, encode_cursor
from wvs.http.writes import Write
from wvs.quiesce.ack_batches import AckKind, Acknowledgement
from wvs.quiesce.sessions import NEWEST, Directive, SessionState

_LIST: Final = "/v1/workspaces/{workspace:str}/sessions"
_ONE: Final = "/v1/sessions/{session:str}"
_GREATEST_NUMBER: Final = 10**15
"""Above every directive's: the numbers of all who wait go to Postgres in one query, where one could fail it for all."""

SessionPath: TypeAlias = Annotated[str, PathParameter(description="Id of a session.")]
After: TypeAlias = Annotated[
    int | None,
    QueryParameter(
        ge=0,
        le=_GREATEST_NUMBER,
        description="The number that was seen last.",
        schema_extra={"minimum": 0},  # Litestar takes a 0 for none
    ),
]
Wait: TypeAlias = Annotated[float, QueryParameter(ge=0, le=60, description="Seconds to wait for another one.")]


@post(
    _LIST,
    status_code=201,
    operation_id="registerSession",
    responses=problem_responses(
        ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.WORKSPACE_NOT_ACTIVE, ErrorCode.WORKSPACE_DISABLED
    ),
)
async def register_session(
    workspace: WorkspacePath, data: JSONBody[NewSession], service: NamedDependency[Service]
) -> Registered:
    """Registers an agent that is going to write the live tree: from now on every freeze waits for it."""
    found = await service.workspace(workspace)
    session = await service.sessions.register(new_id(), found.id, data.agent, data.host, data.pid, data.lease_s)
    directive = await service.sessions.directive(session.id)
    return Registered(session_view(session), _shown(service, directive))


@get(_LIST, operation_id="listSessions", responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND))
async def list_sessions(
    workspace: WorkspacePath,
    service: NamedDependency[Service],
    ended: Annotated[bool, QueryParameter(name="all", description="Those that ended or were evicted, too.")] = False,  # noqa: FBT002
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> SessionList:
    """Lists the sessions of a workspace, newest first."""
    found = await service.workspace(workspace)
    wanted = {"workspace": str(found.id), "all": str(ended)}
    before = NEWEST if cursor is None else decode_cursor(cursor, UUID, _LIST, wanted)
    rows = await service.sessions.of_workspace(found.id, before, limit + 1, ended=ended)
    shown = [session_view(row) for row in rows[:limit]]
    more = len(rows) > limit
    return SessionList(shown, encode_cursor(rows[limit - 1].id, _LIST, wanted) if more else None)


@get(
    f"{_ONE}/directive",
    operation_id="getDirective",
    responses=problem_responses(ErrorCode.SESSION_NOT_FOUND),
)
async def get_directive(
    session: SessionPath, service: NamedDependency[Service], after: After = None, wait: Wait = 0
) -> DirectiveView:
    """What the session is to do now: at once if that is not `after`, else when it changes or `wait` seconds are over.

    Every call renews the session's lease.
    """
    session_id = _session_id(session)
    return await _answered(service, session_id, after, wait, service.sessions.renew_lease(session_id))


@post(
    f"{_ONE}/acks",
    status_code=200,
    operation_id="acknowledge",
    responses=problem_responses(ErrorCode.SESSION_NOT_FOUND, ErrorCode.FREEZE_STALE),
)
async def acknowledge(
    session: SessionPath, data: JSONBody[Ack], service: NamedDependency[Service], after: After = None, wait: Wait = 0
) -> DirectiveView:
    """Takes the session's word on a freeze or on a switch, and answers what it is to do next.

    At once if that is not `after`, else when it changes or `wait` seconds are over: the word is taken before the wait.
    """
    session_id = _session_id(session)
    return await _answered(service, session_id, after, wait, _taken(service, session_id, data))


async def _taken(service: Service, session_id: UUID, data: Ack) -> Directive:
    match data:
        case Switched():
            await service.sessions.switched(session_id, data.epoch)
            return await service.sessions.directive(session_id)
        case Frozen() | FreezeRefused() | StillFrozen():
            taken = await service.sessions.acknowledge(session_id, _word(data))
            if taken.settled:
                service.on_acknowledged()
            return taken.directive
        case _:
            assert_never(data)


@delete(
    _ONE,
    status_code=200,
    operation_id="endSession",
    responses=problem_responses(ErrorCode.SESSION_NOT_FOUND),
)
async def end_session(session: SessionPath, service: NamedDependency[Service]) -> SessionView:
    """Deregisters a session whose process tree is proven to have ended. Repeating it changes nothing."""
    ended = await service.sessions.leave(_session_id(session), SessionState.ENDED)
    service.on_acknowledged()
    return session_view(ended)


@post(
    f"{_ONE}/evict",
    status_code=200,
    operation_id="evictSession",
    responses=problem_responses(
        *OPTIONAL_KEY_PROBLEMS, ErrorCode.SESSION_NOT_FOUND, ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.WORKSPACE_DISABLED
    ),
)
async def evict_session(
    session: SessionPath,
    unkeyed_write: NamedDependency[Write],
    data: JSONBody[Eviction | None] = None,
) -> SessionView:
    """Takes a session out of all freezes from now on: a person answers for its silence, and the log says who."""
    service = unkeyed_write.service
    found = await service.sessions.get(_session_id(session))
    reason = None if data is None else data.reason
    if found.state is SessionState.ACTIVE:
        # The event first: an eviction that nobody could find in the log must not happen.
        command = EvictSession(found.id, reason)
        await unkeyed_write.execute(
            found.workspace_id, command, data, lambda _events, workspace: (200, Show(workspace=workspace.id))
        )
    evicted = await service.sessions.leave(found.id, SessionState.EVICTED, reason)
    service.directives.hint()
    service.on_acknowledged()
    return session_view(evicted)


def _word(ack: Frozen | FreezeRefused | StillFrozen) -> Acknowledgement:
    match ack:
        case FreezeRefused():
            return Acknowledgement(AckKind.REFUSED, ack.freeze, reason=ack.reason)
        case Frozen():
            return Acknowledgement(AckKind.FROZEN, ack.freeze, ack.token, ack.flush)
        case StillFrozen():
            return Acknowledgement(AckKind.STILL_FROZEN, ack.freeze, ack.token)
        case _:
            assert_never(ack)


def _session_id(text: str) -> UUID:
    try:
        return parse_id(SESSION, text)
    except InvalidId as error:
        raise Refused(ErrorCode.SESSION_NOT_FOUND, str(error)) from None


async def _answered(
    service: Service, session_id: UUID, after: int | None, wait_s: float, look: Awaitable[Directive]
) -> DirectiveView:
    """What `look` finds; if that is `after`, what it changes to within `wait_s` seconds."""
    if after is None or wait_s <= 0:
        return _shown(service, await look)
    with service.directives.watching(session_id, after) as changed:
        directive = await look
        if directive.number != after:
            return _shown(service, directive)
        await asyncio.wait({changed}, timeout=wait_s)
        is_told = changed.done() and not changed.cancelled()
        if is_told and (newest := changed.result()) is not None:
            return _shown(service, newest)
        if not is_told and directive.budget_s is None:
            return _shown(service, directive)  # nothing in it has aged
    return _shown(service, await service.sessions.directive(session_id))


def _shown(service: Service, directive: Directive) -> DirectiveView:
    return directive_view(directive, service.views.volume)


HANDLERS: Final = [
    register_session,
    list_sessions,
    get_directive,
    acknowledge,
    end_session,
    evict_session,
]
