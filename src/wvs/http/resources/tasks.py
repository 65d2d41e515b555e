"""Tasks: list, get, retry, cancel."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Struct
from msgspec.structs import replace

from wvs.domain.commands import CancelTask, RetryTask
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.ids import SNAPSHOT, TASK, WORKSPACE, format_id
from wvs.domain.states import TaskKind, TaskState
from wvs.domain.values import TaskError
from wvs.http.live.executors import ExecutorWatch, WaitingFor
from wvs.http.openapi.examples import (
    CREATE_TASK_ID,
    IDEMPOTENCY_KEY,
    INIT_TASK_ID,
    OF_WORKSPACE,
    SNAPSHOT_ID,
    WORKSPACE_ID,
    Examples,
    at,
)
from wvs.http.openapi.headers import ACCEPTED_HEADERS, WAITED_HEADER
from wvs.http.openapi.responses import KEY_PROBLEMS, problem_responses
from wvs.http.requests.bodies import Nothing
from wvs.http.requests.headers import preference_applied
from wvs.http.requests.paging import next_cursor, start_of
from wvs.http.requests.paths import TaskPath, task_id_of
from wvs.http.service import Service
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit
from wvs.http.wire.ids import SnapshotId, TaskId, WorkspaceId, format_optional_id
from wvs.http.writes import PreferHeader, WriteRequest, WriteResult, accepted, present, wait_asked_for
from wvs.projections.listings import TaskFilter
from wvs.readmodel.rows import ProgressRow, TaskRow

_LIST: Final = "/v1/tasks"
_WorkspaceFilter = Annotated[
    str | None,
    QueryParameter(name="workspace", max_length=80, description="Only tasks of the workspace with this id or name."),
]


class TaskView(Struct, frozen=True, kw_only=True):
    """A task. `progress` is null until an attempt reports progress. `notes` of a snapshot or a new live tree that
    succeeded: what was not kept, and which processes held the live tree without being stopped.

    `waiting_for` says why an accepted task does not run; null while executors live, and for a final task.
    """

    id: TaskId
    workspace_id: WorkspaceId
    snapshot_id: SnapshotId | None
    kind: TaskKind
    state: TaskState
    noop: bool
    attempt: int
    max_attempts: int
    progress: ProgressRow | None
    error: TaskError | None
    notes: list[str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None
    waiting_for: WaitingFor | None


class TaskList(Struct, frozen=True):
    """Tasks, newest first; `next_cursor` is null at the end."""

    items: list[TaskView]
    next_cursor: str | None


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
    return TaskList([task_view(row, service.executors) for row in found.rows], next_cursor(found, _LIST, wanted))


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
    """Shows one task. With `Prefer: wait=N`, answers when the task is final or after N seconds."""
    task_id = task_id_of(task)
    row = await _task(service, task_id)
    wait_s = wait_asked_for(request, service.max_wait_s) if prefer else None
    if wait_s is None:
        return Response(task_view(row, service.executors))
    await service.wait_for(row, wait_s)
    row = await _task(service, task_id)
    return Response(task_view(row, service.executors), headers={"preference-applied": preference_applied(wait_s)})


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
    task: TaskPath, write: NamedDependency[WriteRequest], data: JSONBody[Nothing | None] = None
) -> Response[TaskView]:
    """Queues a failed task again, after the tasks that were accepted since."""
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
    task: TaskPath, write: NamedDependency[WriteRequest], data: JSONBody[Nothing | None] = None
) -> Response[TaskView]:
    """Cancels a queued task, ends a running one at its next safe point, or gives up a failed one."""
    return await _act(write, CancelTask(task_id_of(task)), data)


async def _act(write: WriteRequest, command: RetryTask | CancelTask, data: Nothing | None) -> Response[TaskView]:
    workspace_id = await write.service.readers.workspace_of_task(command.task_id)
    if workspace_id is None:
        raise Refused(ErrorCode.TASK_NOT_FOUND, "no task has ever had this id")
    answered = await write.execute(workspace_id, command, data, accepted(task=command.task_id))
    return write.respond(answered, written_task(write, answered))


async def _task(service: Service, task_id: UUID) -> TaskRow:
    row = await service.readers.task(task_id)
    if row is None:
        raise Refused(ErrorCode.TASK_NOT_FOUND, "no task has ever had this id")
    return row


def task_view(row: TaskRow, executors: ExecutorWatch | None) -> TaskView:
    """The task as the API shows it; without `executors` a task of the past, which waits for nothing."""
    return TaskView(
        id=format_id(TASK, row.id),
        workspace_id=format_id(WORKSPACE, row.workspace_id),
        snapshot_id=format_optional_id(SNAPSHOT, row.snapshot_id),
        kind=row.kind,
        state=row.state,
        noop=row.noop,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        progress=row.progress,
        error=row.error,
        notes=list(row.notes or ()),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        next_attempt_at=row.next_attempt_at,
        waiting_for=executors and executors.task_waits_for(row),
    )


def written_task(write: WriteRequest, answered: WriteResult) -> TaskView:
    """The task of a write, as the answer to the write shows it."""
    return task_view(present(answered.rows.task), write.service.executors)


HANDLERS: Final = [list_tasks, get_task, retry_task, cancel_task]


def queued_task_example(
    task_id: str, kind: TaskKind, created_at: datetime, snapshot_id: str | None = SNAPSHOT_ID
) -> TaskView:
    return TaskView(
        id=task_id,
        workspace_id=WORKSPACE_ID,
        snapshot_id=snapshot_id,
        kind=kind,
        state=TaskState.QUEUED,
        noop=False,
        attempt=0,
        max_attempts=5,
        progress=None,
        error=None,
        notes=[],
        created_at=created_at,
        started_at=None,
        finished_at=None,
        next_attempt_at=None,
        waiting_for=None,
    )


EXAMPLE_INIT: Final = queued_task_example(INIT_TASK_ID, TaskKind.WORKSPACE_INIT, at(0, 0), snapshot_id=None)
EXAMPLE_CREATE: Final = queued_task_example(CREATE_TASK_ID, TaskKind.SNAPSHOT_CREATE, at(2, 0))
_EXAMPLE_RUNNING: Final = replace(
    EXAMPLE_CREATE,
    state=TaskState.RUNNING,
    attempt=1,
    progress=ProgressRow("clone", 310, 1204, 4194304, 18874368),
    started_at=at(2, 0, 12),
)
_EXAMPLE_SUCCEEDED: Final = replace(
    _EXAMPLE_RUNNING, state=TaskState.SUCCEEDED, progress=ProgressRow("done", 1204, 1204), finished_at=at(2, 0, 131)
)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "listTasks": Examples(
        {200: {"the only page": TaskList([_EXAMPLE_RUNNING], None)}}, parameters={**OF_WORKSPACE, "state": "running"}
    ),
    "getTask": Examples(
        {200: {"running": _EXAMPLE_RUNNING, "succeeded": _EXAMPLE_SUCCEEDED}},
        parameters={"task": CREATE_TASK_ID, "Prefer": "wait=10"},
    ),
    "retryTask": Examples(
        {202: {"queued again": EXAMPLE_CREATE}},
        {"empty": Nothing()},
        {"task": CREATE_TASK_ID, "Idempotency-Key": IDEMPOTENCY_KEY},
    ),
    "cancelTask": Examples(
        {202: {"cancelled": replace(EXAMPLE_CREATE, state=TaskState.CANCELLED, finished_at=at(2, 1))}},
        {"empty": Nothing()},
        {"task": CREATE_TASK_ID, "Idempotency-Key": IDEMPOTENCY_KEY},
    ),
}
