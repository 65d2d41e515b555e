"""Tasks: list, get, retry, cancel."""

from typing import Annotated, Final
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from wvs.domain.commands import CancelTask, RetryTask
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.states import TaskKind, TaskState
from wvs.http.openapi.responses import problem_responses
from wvs.http.requests.headers import preference_applied
from wvs.http.requests.paging import next_cursor, start_of
from wvs.http.requests.paths import TaskPath
from wvs.http.resources.answers import ACCEPTED_HEADERS, KEY_PROBLEMS, WAITED_HEADER
from wvs.http.resources.workspaces import Nothing
from wvs.http.service import Service, task_id_of
from wvs.http.views import TaskList, TaskView
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit
from wvs.http.writes import PreferHeader, Write, accepted, shown, wait_asked_for
from wvs.projections.listings import TaskFilter
from wvs.readmodel.rows import TaskRow

_LIST: Final = "/v1/tasks"
_WorkspaceFilter = Annotated[
    str | None, QueryParameter(name="workspace", max_length=80, description="Id or name of a workspace.")
]


@get(
    _LIST,
    operation_id="listTasks",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.INVALID_CURSOR),
)
async def list_tasks(
    service: NamedDependency[Service],
    workspace: _WorkspaceFilter = None,
    state_filter: Annotated[TaskState | None, QueryParameter(name="state")] = None,
    kind: Annotated[TaskKind | None, QueryParameter()] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> TaskList:
    """Lists tasks, newest first."""
    workspace_id = None if workspace is None else (await service.workspace(workspace)).id
    wanted = TaskFilter(workspace_id, state_filter, kind)
    found = await service.listings.tasks(wanted, start_of(cursor, _LIST, wanted), limit)
    return TaskList([service.views.task(row) for row in found.rows], next_cursor(found, _LIST, wanted))


@get(
    "/v1/tasks/{task:str}",
    operation_id="getTask",
    responses=problem_responses(ErrorCode.TASK_NOT_FOUND),
    response_headers=[WAITED_HEADER],
)
async def get_task(
    task: TaskPath,
    service: NamedDependency[Service],
    request: Request[None, None, State],
    prefer: PreferHeader = None,
) -> Response[TaskView]:
    """Shows one task; with `Prefer: wait=N` when it is final, or as it is after N seconds."""
    task_id = task_id_of(task)
    row = await _task(service, task_id)
    wait_s = wait_asked_for(request) if prefer else None
    if wait_s is None:
        return Response(service.views.task(row))
    await service.wait_for(row, wait_s)
    row = await _task(service, task_id)
    return Response(service.views.task(row), headers={"preference-applied": preference_applied(wait_s)})


@post(
    "/v1/tasks/{task:str}/retry",
    status_code=202,
    operation_id="retryTask",
    responses=problem_responses(
        *KEY_PROBLEMS,
        ErrorCode.TASK_NOT_FOUND,
        ErrorCode.TASK_NOT_RETRYABLE,
        ErrorCode.WORKSPACE_DISABLED,
        ErrorCode.SNAPSHOT_NOT_READY,
        ErrorCode.WORKSPACE_QUEUE_FULL,
    ),
    response_headers=ACCEPTED_HEADERS,
)
async def retry_task(
    task: TaskPath, write: NamedDependency[Write], data: JSONBody[Nothing | None] = None
) -> Response[TaskView]:
    """Queues a failed task again, behind those accepted since."""
    return await _act(write, RetryTask(task_id_of(task)), data)


@post(
    "/v1/tasks/{task:str}/cancel",
    status_code=202,
    operation_id="cancelTask",
    responses=problem_responses(
        *KEY_PROBLEMS, ErrorCode.TASK_NOT_FOUND, ErrorCode.TASK_NOT_CANCELLABLE, ErrorCode.WORKSPACE_DISABLED
    ),
    response_headers=ACCEPTED_HEADERS,
)
async def cancel_task(
    task: TaskPath, write: NamedDependency[Write], data: JSONBody[Nothing | None] = None
) -> Response[TaskView]:
    """Cancels a queued task, asks a running one to end at its next safe point, or abandons a failed one."""
    return await _act(write, CancelTask(task_id_of(task)), data)


async def _act(write: Write, command: RetryTask | CancelTask, data: Nothing | None) -> Response[TaskView]:
    workspace_id = await write.service.readers.workspace_of_task(command.task_id)
    if workspace_id is None:
        raise Refused(ErrorCode.TASK_NOT_FOUND, "no task has ever had this id")
    answered = await write.execute(workspace_id, command, data, accepted(task=command.task_id))
    return write.respond(answered, write.service.views.task(shown(answered.rows.task)))


async def _task(service: Service, task_id: UUID) -> TaskRow:
    row = await service.readers.task(task_id)
    if row is None:
        raise Refused(ErrorCode.TASK_NOT_FOUND, "no task has ever had this id")
    return row


HANDLERS: Final = [list_tasks, get_task, retry_task, cancel_task]
