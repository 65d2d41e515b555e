"""Workspaces: create, list, get, retry-init, disable."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Struct
from msgspec.structs import asdict, replace

from wvs.domain.commands import CreateWorkspace, DisableWorkspace, RetryInit
from wvs.domain.errors import ErrorCode
from wvs.domain.events import Event, WorkspaceInitRetried
from wvs.domain.ids import SNAPSHOT, WORKSPACE, format_id
from wvs.domain.states import WorkspaceState
from wvs.domain.values import NAME_PATTERN, Labels, Reason, TaskError, WorkspaceName
from wvs.domain.workspace import Workspace
from wvs.eventlog.recorder import Show
from wvs.http.openapi.examples import IDEMPOTENCY_KEY, KEYED_WRITE, LIVE_PATH, OF_WORKSPACE, WORKSPACE_ID, Examples, at
from wvs.http.openapi.headers import ACCEPTED_HEADERS, REPLAYED_HEADER
from wvs.http.openapi.responses import KEY_PROBLEMS, OPTIONAL_KEY_PROBLEMS, problem_responses
from wvs.http.requests.bodies import Nothing
from wvs.http.requests.paging import next_cursor, start_of
from wvs.http.requests.paths import WorkspacePath
from wvs.http.resources.tasks import EXAMPLE_INIT, TaskView, written_task
from wvs.http.service import Service, new_id
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit
from wvs.http.wire.ids import SnapshotId, WorkspaceId, format_optional_id
from wvs.http.wire.tree_paths import live_root
from wvs.http.writes import WriteRequest, WriteResult, accepted, present
from wvs.projections.listings import WorkspaceFilter
from wvs.readmodel.rows import WorkspaceRow

_LIST: Final = "/v1/workspaces"


class NewWorkspace(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A new workspace."""

    name: WorkspaceName
    labels: Labels = {}


class Disabling(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The reason for disabling a workspace."""

    reason: Reason | None = None


class WorkspaceView(Struct, frozen=True, kw_only=True):
    """A workspace. `path` is the link to its live tree on the hosts of the volume; the path never changes."""

    id: WorkspaceId
    name: str
    state: WorkspaceState
    labels: dict[str, str]
    current_snapshot_id: SnapshotId | None
    path: str
    epoch: int
    error: TaskError | None
    created_at: datetime
    disabled_at: datetime | None


class WorkspaceDetails(WorkspaceView, frozen=True, kw_only=True):
    """A workspace. `path_replaced_by` says what an executor last saw at `path` instead of the link that WVS made: a
    directory, a file or another link. Snapshots fail with `PATH_REPLACED` until it is moved away.
    """

    path_replaced_by: str | None


class WorkspaceAccepted(Struct, frozen=True):
    """A workspace and its task."""

    workspace: WorkspaceView
    task: TaskView


class WorkspaceList(Struct, frozen=True):
    """Workspaces, newest first; `next_cursor` is null at the end."""

    items: list[WorkspaceView]
    next_cursor: str | None


@post(
    _LIST,
    status_code=202,
    operation_id="createWorkspace",
    responses=problem_responses(*KEY_PROBLEMS, ErrorCode.WORKSPACE_NAME_TAKEN),
    response_headers=ACCEPTED_HEADERS,
)
async def create_workspace(
    data: JSONBody[NewWorkspace], write: NamedDependency[WriteRequest]
) -> Response[WorkspaceAccepted]:
    """Creates a workspace. It becomes active when its `workspace_init` task succeeds."""
    workspace_id, task_id = new_id(), new_id()
    answered = await write.execute(
        workspace_id,
        CreateWorkspace(data.name, data.labels, task_id, volume_id=await write.service.readers.volume_id()),
        data,
        accepted(workspace=workspace_id, task=task_id),
    )
    return _accepted(write, answered)


@get(_LIST, operation_id="listWorkspaces", responses=problem_responses(ErrorCode.INVALID_CURSOR))
async def list_workspaces(
    service: NamedDependency[Service],
    state_filter: Annotated[WorkspaceState | None, QueryParameter(name="state")] = None,
    name: Annotated[str | None, QueryParameter(max_length=63, pattern=NAME_PATTERN)] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> WorkspaceList:
    """Lists workspaces, newest first, including disabled ones."""
    wanted = WorkspaceFilter(state_filter, name)
    found = await service.listings.workspaces(wanted, start_of(cursor, _LIST, wanted), limit)
    items = [workspace_view(row, service.volume) for row in found.rows]
    return WorkspaceList(items, next_cursor(found, _LIST, wanted))


@get(
    "/v1/workspaces/{workspace:str}",
    operation_id="getWorkspace",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND),
)
async def get_workspace(workspace: WorkspacePath, service: NamedDependency[Service]) -> WorkspaceDetails:
    """Shows one workspace."""
    row = await service.workspace(workspace)
    return _details(workspace_view(row, service.volume), row.path_replaced_by)


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
    workspace: WorkspacePath, write: NamedDependency[WriteRequest], data: JSONBody[Nothing | None] = None
) -> Response[WorkspaceAccepted]:
    """Retries the initialization of a workspace in the state `init_failed`."""
    workspace_id = await write.service.workspace_id(workspace)
    answered = await write.execute(workspace_id, RetryInit(new_id()), data, _init_retried)
    return _accepted(write, answered)


@post(
    "/v1/workspaces/{workspace:str}/disable",
    status_code=200,
    operation_id="disableWorkspace",
    responses=problem_responses(*OPTIONAL_KEY_PROBLEMS, ErrorCode.WORKSPACE_NOT_FOUND),
    response_headers=[REPLAYED_HEADER],
)
async def disable_workspace(
    workspace: WorkspacePath, unkeyed_write: NamedDependency[WriteRequest], data: JSONBody[Disabling | None] = None
) -> Response[WorkspaceView]:
    """Disables a workspace permanently. Its data stays readable, and it accepts no other write. May be repeated."""
    workspace_id = await unkeyed_write.service.workspace_id(workspace)
    wanted = data or Disabling()
    answered = await unkeyed_write.execute(workspace_id, DisableWorkspace(wanted.reason), wanted, _disabled)
    row = answered.rows.workspace or await unkeyed_write.service.workspace(workspace)
    return unkeyed_write.respond(answered, workspace_view(row, unkeyed_write.service.volume))


def _accepted(write: WriteRequest, answered: WriteResult) -> Response[WorkspaceAccepted]:
    workspace = workspace_view(present(answered.rows.workspace), write.service.volume)
    return write.respond(answered, WorkspaceAccepted(workspace, written_task(write, answered)))


def _init_retried(events: list[Event], workspace: Workspace) -> tuple[int, Show]:
    return 202, Show(workspace=workspace.id, task=_task_of(events))


def _task_of(events: list[Event]) -> UUID:
    return next(event.task_id for event in events if isinstance(event, WorkspaceInitRetried))


def _disabled(_events: list[Event], workspace: Workspace) -> tuple[int, Show]:
    return 200, Show(workspace=workspace.id)


def _details(view: WorkspaceView, path_replaced_by: str | None) -> WorkspaceDetails:
    return WorkspaceDetails(**asdict(view), path_replaced_by=path_replaced_by)


def workspace_view(row: WorkspaceRow, volume: Path) -> WorkspaceView:
    """The workspace as the API shows it; `volume` is the volume's directory on its hosts."""
    return WorkspaceView(
        id=format_id(WORKSPACE, row.id),
        name=row.name,
        state=row.state,
        labels=row.labels,
        current_snapshot_id=format_optional_id(SNAPSHOT, row.current_snapshot_id),
        path=live_root(volume, row.id),
        epoch=row.epoch,
        error=row.error,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
    )


HANDLERS: Final = [create_workspace, list_workspaces, get_workspace, retry_init, disable_workspace]

EXAMPLE_WORKSPACE: Final = WorkspaceView(
    id=WORKSPACE_ID,
    name="agent-7",
    state=WorkspaceState.ACTIVE,
    labels={"team": "search"},
    current_snapshot_id=None,
    path=LIVE_PATH,
    epoch=1,
    error=None,
    created_at=at(0, 0),
    disabled_at=None,
)
EXAMPLE_NEW_WORKSPACE: Final = replace(EXAMPLE_WORKSPACE, state=WorkspaceState.INITIALIZING, epoch=0)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "createWorkspace": Examples(
        {202: {"accepted": WorkspaceAccepted(EXAMPLE_NEW_WORKSPACE, EXAMPLE_INIT)}},
        {
            "a name": NewWorkspace("agent-7"),
            "with labels": NewWorkspace("agent-7", {"team": "search"}),
        },
        {"Idempotency-Key": IDEMPOTENCY_KEY, "Prefer": "wait=10"},
    ),
    "listWorkspaces": Examples({200: {"the only page": WorkspaceList([EXAMPLE_WORKSPACE], None)}}),
    "getWorkspace": Examples(
        {
            200: {
                "active": _details(EXAMPLE_WORKSPACE, None),
                "with a replaced path": _details(EXAMPLE_WORKSPACE, "a directory"),
            }
        },
        parameters=OF_WORKSPACE,
    ),
    "retryInit": Examples(
        {202: {"accepted": WorkspaceAccepted(EXAMPLE_NEW_WORKSPACE, EXAMPLE_INIT)}}, {"empty": Nothing()}, KEYED_WRITE
    ),
    "disableWorkspace": Examples(
        {200: {"disabled": replace(EXAMPLE_WORKSPACE, state=WorkspaceState.DISABLED, disabled_at=at(9, 0))}},
        {"with a reason": Disabling("the project is over"), "empty": Disabling()},
        KEYED_WRITE,
    ),
}
