"""The pointer `current` of a workspace: get and set."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

from litestar import Request, Response, get, put
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import HeaderParameter, JSONBody
from msgspec import Struct
from msgspec.structs import replace

from wvs.domain.commands import SetCurrent
from wvs.domain.errors import ErrorCode
from wvs.domain.events import CurrentSetSkipped, Event
from wvs.domain.ids import SNAPSHOT, InvalidId, parse_id
from wvs.domain.states import TaskKind, TaskState
from wvs.domain.workspace import Workspace
from wvs.eventlog.recorder import Show
from wvs.http.openapi.examples import KEYED_WRITE, LIVE_PATH, OF_WORKSPACE, SET_TASK_ID, SNAPSHOT_ID, Examples, at
from wvs.http.openapi.headers import ACCEPTED_HEADERS, ETAG_HEADER
from wvs.http.openapi.responses import KEY_PROBLEMS, problem_responses
from wvs.http.problems.problem import FieldError, refuse_fields
from wvs.http.requests.headers import parse_if_match
from wvs.http.requests.paths import WorkspacePath
from wvs.http.resources.tasks import TaskView, queued_task_example, written_task
from wvs.http.service import Service, new_id
from wvs.http.wire.ids import SnapshotId, format_optional_id
from wvs.http.wire.tree_paths import live_root
from wvs.http.writes import WriteRequest, present
from wvs.readmodel.rows import WorkspaceRow

_PATH: Final = "/v1/workspaces/{workspace:str}/current"
_ETAG: Final = re.compile(r'"(0|[1-9][0-9]{0,17})"')


class NewCurrent(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The snapshot to build the live tree from. With `reset`, the tree is rebuilt even if that snapshot is current."""

    snapshot_id: SnapshotId
    reset: bool = False


class CurrentView(Struct, frozen=True):
    """The pointer: the snapshot that the live tree was last built from, and the epoch, which is also the ETag."""

    snapshot_id: SnapshotId | None
    path: str
    epoch: int


class CurrentAccepted(Struct, frozen=True):
    """The pointer and the task that moves it."""

    current: CurrentView
    task: TaskView


@get(
    _PATH,
    operation_id="getCurrent",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND),
    response_headers=[ETAG_HEADER],
)
async def get_current(workspace: WorkspacePath, service: NamedDependency[Service]) -> Response[CurrentView]:
    """Shows the snapshot that the live tree was last built from (null at first) and the path of the live tree."""
    row = await service.workspace(workspace)
    return Response(current_view(row, service.volume), headers={"etag": _etag(row.epoch)})


@put(
    _PATH,
    status_code=202,
    operation_id="setCurrent",
    responses={
        **problem_responses(
            *KEY_PROBLEMS,
            ErrorCode.WORKSPACE_NOT_FOUND,
            ErrorCode.SNAPSHOT_NOT_FOUND,
            ErrorCode.WORKSPACE_NOT_ACTIVE,
            ErrorCode.WORKSPACE_DISABLED,
            ErrorCode.SNAPSHOT_NOT_READY,
            ErrorCode.SNAPSHOT_DROPPED,
            ErrorCode.CURRENT_CHANGED,
            ErrorCode.PATH_REPLACED,
            ErrorCode.WORKSPACE_QUEUE_FULL,
        ),
        200: ResponseSpec(
            CurrentAccepted,
            generate_examples=False,
            description="The snapshot is already current: nothing was changed.",
        ),
    },
    response_headers=ACCEPTED_HEADERS,
)
async def set_current(
    workspace: WorkspacePath,
    data: JSONBody[NewCurrent],
    write: NamedDependency[WriteRequest],
    request: Request[None, None, State],
    if_match: Annotated[
        str | None,
        HeaderParameter(
            name="If-Match",
            required=False,
            description="Execute the request only if the ETag of `current` is one of these and no task is about to "
            "change it. `*` sets no condition.",
        ),
    ] = None,
) -> Response[CurrentAccepted]:
    """Rebuilds the live tree from a snapshot.

    If that snapshot is current already, answers 200 and a task with `noop`, unless `reset` is set. Refuses that with
    `PATH_REPLACED` if the path of the live tree shows something else.
    """
    snapshot_id = _snapshot_id_of(data)
    condition = None if if_match is None else ", ".join(request.headers.getall("if-match"))
    row = await write.service.workspace(workspace)
    command = SetCurrent(snapshot_id, new_id(), data.reset, _epochs(condition), row.path_replaced_by)

    def describe(events: list[Event], _workspace: Workspace) -> tuple[int, Show]:
        skipped = any(isinstance(event, CurrentSetSkipped) for event in events)
        return 200 if skipped else 202, Show(workspace=row.id, task=command.task_id)

    answered = await write.execute(row.id, command, data, describe)
    rows = answered.rows
    return write.respond(
        answered,
        CurrentAccepted(
            current_view(present(rows.workspace), write.service.volume),
            written_task(write, answered),
        ),
    )


def _etag(epoch: int) -> str:
    return f'"{epoch}"'


def _epochs(header: str | None) -> frozenset[int] | None:
    condition = parse_if_match(header)
    if condition is None or condition.any_tag:
        return None
    # This resource never issues a tag of another form, so such a tag matches nothing.
    return frozenset(int(match[1]) for tag in condition.tags if (match := _ETAG.fullmatch(tag)))


def _snapshot_id_of(data: NewCurrent) -> UUID:
    try:
        return parse_id(SNAPSHOT, data.snapshot_id)
    except InvalidId as error:
        raise refuse_fields(FieldError("body", "snapshot_id", str(error))) from None


def current_view(row: WorkspaceRow, volume: Path) -> CurrentView:
    """The workspace's pointer as the API shows it; `volume` is the volume's directory on its hosts."""
    return CurrentView(format_optional_id(SNAPSHOT, row.current_snapshot_id), live_root(volume, row.id), row.epoch)


HANDLERS: Final = [get_current, set_current]

_EXAMPLE_SET: Final = queued_task_example(SET_TASK_ID, TaskKind.CURRENT_SET, at(4, 0))
_EXAMPLE_CURRENT: Final = CurrentView(SNAPSHOT_ID, LIVE_PATH, 2)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "getCurrent": Examples({200: {"set": _EXAMPLE_CURRENT}}, parameters=OF_WORKSPACE),
    "setCurrent": Examples(
        {
            202: {"accepted": CurrentAccepted(CurrentView(None, LIVE_PATH, 1), _EXAMPLE_SET)},
            200: {
                "already current": CurrentAccepted(
                    _EXAMPLE_CURRENT, replace(_EXAMPLE_SET, state=TaskState.SUCCEEDED, noop=True, finished_at=at(4, 0))
                )
            },
        },
        {"a snapshot": NewCurrent(SNAPSHOT_ID), "rebuild": NewCurrent(SNAPSHOT_ID, reset=True)},
        {**KEYED_WRITE, "If-Match": '"1"'},
    ),
}
