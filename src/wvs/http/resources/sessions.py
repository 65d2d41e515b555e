"""Sessions of a workspace: register, list, end, evict."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, Struct
from msgspec.structs import replace

from wvs.domain.commands import EvictSession
from wvs.domain.errors import ErrorCode
from wvs.domain.ids import SESSION, WORKSPACE, format_id
from wvs.domain.values import TEXT_PATTERN, Reason
from wvs.eventlog.recorder import Show
from wvs.http.openapi.examples import OF_SESSION, OF_WORKSPACE, SESSION_ID, SESSION_SECRET, WORKSPACE_ID, Examples, at
from wvs.http.openapi.responses import OPTIONAL_KEY_PROBLEMS, problem_responses
from wvs.http.requests.paths import SessionPath, WorkspacePath, session_id_of
from wvs.http.resources.directives import EXAMPLE_DIRECTIVE, DirectiveView, directive_view
from wvs.http.resources.own_session import OF_OWN_SESSION, OWN_SESSION_PROBLEMS, SessionSecret, own_session
from wvs.http.service import Service, new_id
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit, decode_cursor, encode_cursor
from wvs.http.wire.ids import SessionId, WorkspaceId
from wvs.http.writes import WriteRequest
from wvs.quiesce.sessions import NEWEST, RegisteredSession, SessionState

LEASE_S: Final = 30.0

AgentName = Annotated[
    str, Meta(min_length=1, max_length=200, pattern=TEXT_PATTERN, description="The name of the agent, for people.")
]
HostName = Annotated[str, Meta(min_length=1, max_length=255, pattern=TEXT_PATTERN)]
Secret = Annotated[
    str,
    Meta(
        description="Send it as `X-Session-Secret` with every request of this session. The service stores only its "
        "hash, and no other answer contains it."
    ),
]
_LIST: Final = "/v1/workspaces/{workspace:str}/sessions"
_ONE: Final = "/v1/sessions/{session:str}"


class NewSession(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent that will write to the live tree."""

    agent: AgentName
    host: HostName
    pid: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    lease_s: Annotated[
        float, Meta(ge=5, le=600, description="Seconds without a request after which the session's lease expires.")
    ] = LEASE_S


class Eviction(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The reason for evicting a session."""

    reason: Reason | None = None


class SessionView(Struct, frozen=True, kw_only=True):
    """A session. With `lease_expired`, the agent has sent no request within its lease. Every freeze still waits for it
    until it is evicted.
    """

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


class Registered(Struct, frozen=True):
    """A new session, its first directive, and its secret. The agent must not start its work while the directive is
    `freeze`.
    """

    session: SessionView
    directive: DirectiveView
    secret: Secret


class SessionList(Struct, frozen=True):
    """A page of sessions, newest first."""

    items: list[SessionView]
    next_cursor: str | None


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
    """Registers an agent that will write to the live tree. From now on every freeze waits for it.

    The answer has the session's secret, and is not stored: a repeated request registers another session.
    """
    found = await service.workspace(workspace)
    session, secret = await service.sessions.register(new_id(), found.id, data.agent, data.host, data.pid, data.lease_s)
    directive = await service.sessions.directive(session.id)
    return Registered(session_view(session), directive_view(directive, service.volume), secret)


@get(_LIST, operation_id="listSessions", responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND))
async def list_sessions(
    workspace: WorkspacePath,
    service: NamedDependency[Service],
    ended: Annotated[bool, QueryParameter(name="all", description="Include ended and evicted ones.")] = False,  # noqa: FBT002
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


@delete(
    _ONE,
    status_code=200,
    operation_id="endSession",
    responses=problem_responses(*OWN_SESSION_PROBLEMS),
)
async def end_session(
    session: SessionPath, service: NamedDependency[Service], secret: SessionSecret = None
) -> SessionView:
    """Ends a session. Call it only when all processes of the session have ended. Repeating the call changes nothing."""
    ended = await service.sessions.leave(await own_session(service, session, secret), SessionState.ENDED)
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
    unkeyed_write: NamedDependency[WriteRequest],
    data: JSONBody[Eviction | None] = None,
) -> SessionView:
    """Evicts a session: later freezes do not wait for it. The log records the actor, who answers for its processes."""
    service = unkeyed_write.service
    found = await service.sessions.get(session_id_of(session))
    reason = None if data is None else data.reason
    if found.state is SessionState.ACTIVE:
        # Write the event first, so that no eviction is missing from the log.
        command = EvictSession(found.id, reason)
        await unkeyed_write.execute(
            found.workspace_id, command, data, lambda _events, workspace: (200, Show(workspace=workspace.id))
        )
    evicted = await service.sessions.leave(found.id, SessionState.EVICTED, reason)
    service.directive_waiter.hint()
    service.on_acknowledged()
    return session_view(evicted)


def session_view(session: RegisteredSession) -> SessionView:
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


HANDLERS: Final = [register_session, list_sessions, end_session, evict_session]

_EXAMPLE_SESSION: Final = SessionView(
    id=SESSION_ID,
    workspace_id=WORKSPACE_ID,
    state=SessionState.ACTIVE,
    agent="coder",
    host="build-3",
    pid=4711,
    epoch=1,
    lease_until=at(1, 30),
    lease_expired=False,
    reason=None,
    registered_at=at(1, 0),
    ended_at=None,
)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "registerSession": Examples(
        {201: {"registered": Registered(_EXAMPLE_SESSION, EXAMPLE_DIRECTIVE, SESSION_SECRET)}},
        {"an agent": NewSession("coder", "build-3", 4711), "a short lease": NewSession("coder", "build-3", lease_s=10)},
        OF_WORKSPACE,
    ),
    "listSessions": Examples({200: {"the only page": SessionList([_EXAMPLE_SESSION], None)}}, parameters=OF_WORKSPACE),
    "endSession": Examples(
        {200: {"ended": replace(_EXAMPLE_SESSION, state=SessionState.ENDED, ended_at=at(6, 0))}},
        parameters=OF_OWN_SESSION,
    ),
    "evictSession": Examples(
        {
            200: {
                "evicted": replace(
                    _EXAMPLE_SESSION, state=SessionState.EVICTED, reason="the host is gone", ended_at=at(6, 0)
                )
            }
        },
        {"with a reason": Eviction("host is gone"), "empty": Eviction()},
        OF_SESSION,
    ),
}
