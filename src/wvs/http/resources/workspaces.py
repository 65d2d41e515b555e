"""Workspaces: create, list, get, retry-init, disable."""

from typing import Annotated, Final
from uuid import UUID

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Struct

from wvs.domain.commands import CreateWorkspace, DisableWorkspace, RetryInit
from wvs.domain.errors import ErrorCode
from wvs.domain.events import Event, WorkspaceInitRetried
from wvs.domain.states import WorkspaceState
from wvs.domain.values import NAME_PATTERN, Labels, Message, WorkspaceName
from wvs.domain.workspace import Workspace
from wvs.eventlog.recorder import Show
from wvs.http.openapi.responses import problem_responses
from wvs.http.requests.paging import next_cursor, start_of
from wvs.http.requests.paths import WorkspacePath
from wvs.http.resources.answers import ACCEPTED_HEADERS, KEY_PROBLEMS, OPTIONAL_KEY_PROBLEMS, REPLAYED_HEADER
from wvs.http.service import Service, new_id
from wvs.http.views import WorkspaceAccepted, WorkspaceList, WorkspaceView
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit
from wvs.http.writes import Write, accepted, shown
from wvs.projections.listings import WorkspaceFilter

_LIST: Final = "/v1/workspaces"


class NewWorkspace(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workspace to be."""

    name: WorkspaceName
    labels: Labels = {}


class Disabling(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Why a workspace is disabled."""

    reason: Message | None = None


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


@post(
    _LIST,
    status_code=202,
    operation_id="createWorkspace",
    responses=problem_responses(*KEY_PROBLEMS, ErrorCode.WORKSPACE_NAME_TAKEN),
    response_headers=ACCEPTED_HEADERS,
)
async def create_workspace(data: JSONBody[NewWorkspace], write: NamedDependency[Write]) -> Response[WorkspaceAccepted]:
    """Makes a workspace. It is active when its `workspace_init` task has succeeded."""
    workspace_id, task_id = new_id(), new_id()
    answered = await write.execute(
        workspace_id,
        CreateWorkspace(data.name, data.labels, task_id),
        data,
        accepted(workspace=workspace_id, task=task_id),
    )
    views, rows = write.service.views, answered.rows
    content = WorkspaceAccepted(views.workspace(shown(rows.workspace)), views.task(shown(rows.task)))
    return write.respond(answered, content)


@get(_LIST, operation_id="listWorkspaces", responses=problem_responses(ErrorCode.INVALID_CURSOR))
async def list_workspaces(
    service: NamedDependency[Service],
    state_filter: Annotated[WorkspaceState | None, QueryParameter(name="state")] = None,
    name: Annotated[str | None, QueryParameter(max_length=63, pattern=NAME_PATTERN)] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> WorkspaceList:
    """Lists workspaces, newest first, disabled ones included."""
    wanted = WorkspaceFilter(state_filter, name)
    found = await service.listings.workspaces(wanted, start_of(cursor, _LIST, wanted), limit)
    items = [service.views.workspace(row) for row in found.rows]
    return WorkspaceList(items, next_cursor(found, _LIST, wanted))


@get(
    "/v1/workspaces/{workspace:str}",
    operation_id="getWorkspace",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND),
)
async def get_workspace(workspace: WorkspacePath, service: NamedDependency[Service]) -> WorkspaceView:
    """Shows one workspace."""
    return service.views.workspace(await service.workspace(workspace))


@post(
    "/v1/workspaces/{workspace:str}/retry-init",
    status_code=202,
    operation_id="retryInit",
    responses=problem_responses(
        *KEY_PROBLEMS,
        ErrorCode.WORKSPACE_NOT_FOUND,
        ErrorCode.WORKSPACE_DISABLED,
        ErrorCode.WORKSPACE_NOT_INIT_FAILED,
    ),
    response_headers=ACCEPTED_HEADERS,
)
async def retry_init(
    workspace: WorkspacePath, write: NamedDependency[Write], data: JSONBody[Nothing | None] = None
) -> Response[WorkspaceAccepted]:
    """Initialises again a workspace that is `init_failed`."""
    workspace_id = await write.service.workspace_id(workspace)
    answered = await write.execute(workspace_id, RetryInit(new_id()), data, _init_retried)
    views, rows = write.service.views, answered.rows
    content = WorkspaceAccepted(views.workspace(shown(rows.workspace)), views.task(shown(rows.task)))
    return write.respond(answered, content)


@post(
    "/v1/workspaces/{workspace:str}/disable",
    status_code=200,
    operation_id="disableWorkspace",
    responses=problem_responses(*OPTIONAL_KEY_PROBLEMS, ErrorCode.WORKSPACE_NOT_FOUND),
    response_headers=[REPLAYED_HEADER],
)
async def disable_workspace(
    workspace: WorkspacePath, unkeyed_write: NamedDependency[Write], data: JSONBody[Disabling | None] = None
) -> Response[WorkspaceView]:
    """Disables a workspace for good: its data stays and reads work, every other write is refused. May be repeated."""
    workspace_id = await unkeyed_write.service.workspace_id(workspace)
    wanted = data or Disabling()
    answered = await unkeyed_write.execute(workspace_id, DisableWorkspace(wanted.reason), wanted, _disabled)
    row = answered.rows.workspace or await unkeyed_write.service.workspace(workspace)
    return unkeyed_write.respond(answered, unkeyed_write.service.views.workspace(row))


def _init_retried(events: list[Event], workspace: Workspace) -> tuple[int, Show]:
    return 202, Show(workspace=workspace.id, task=_task_of(events))


def _task_of(events: list[Event]) -> UUID:
    return next(event.task_id for event in events if isinstance(event, WorkspaceInitRetried))


def _disabled(_events: list[Event], workspace: Workspace) -> tuple[int, Show]:
    return 200, Show(workspace=workspace.id)


HANDLERS: Final = [create_workspace, list_workspaces, get_workspace, retry_init, disable_workspace]
