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
from wvs.http.openapi.examples import KEYED_WRITE, LIVE_LINK, OF_WORKSPACE, SET_TASK_ID, SNAPSHOT_ID, Examples, at
from wvs.http.openapi.headers import ACCEPTED_HEADERS, ETAG_HEADER
from wvs.http.openapi.responses import KEY_PROBLEMS, problem_responses
from wvs.http.problems.problem import FieldError, refuse_fields
from wvs.http.requests.headers import parse_if_match
from wvs.http.requests.paths import WorkspacePath
from wvs.http.resources.tasks import TaskView, queued_task_example, task_view
from wvs.http.service import Service, new_id
from wvs.http.wire.ids import SnapshotId, format_optional_id
from wvs.http.wire.tree_paths import live_link
from wvs.http.writes import WriteRequest, present
from wvs.readmodel.rows import WorkspaceRow

_PATH: Final = "/v1/workspaces/{workspace:str}/current"
_ETAG: Final = re.compile(r'"(0|[1-9][0-9]{0,17})"')


class NewCurrent(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The snapshot to make the live tree from; `reset` does it even if that snapshot is current."""

    snapshot_id: SnapshotId
    reset: bool = False


class CurrentView(Struct, frozen=True):
    """The pointer: the snapshot that the live tree was last made from, and its epoch, which is also the ETag."""

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
    """Shows which snapshot the live tree was last made from (null at first), and where the live tree is."""
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
            ErrorCode.WORKSPACE_QUEUE_FULL,
        ),
        200: ResponseSpec(
            CurrentAccepted, generate_examples=False, description="The snapshot was current: nothing was done."
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
            description='Go on only if the ETag of `current` is one of these and no task is about to change it. "*" '
            "asks for nothing.",
        ),
    ] = None,
) -> Response[CurrentAccepted]:
    """Makes the live tree afresh from a snapshot. Where that is current, 200 and a task with `noop`, unless `reset`."""
    snapshot_id = _snapshot_id_of(data)
    condition = None if if_match is None else ", ".join(request.headers.getall("if-match"))
    command = SetCurrent(snapshot_id, new_id(), data.reset, _epochs(condition))
    workspace_id = await write.service.workspace_id(workspace)

    def describe(events: list[Event], _workspace: Workspace) -> tuple[int, Show]:
        skipped = any(isinstance(event, CurrentSetSkipped) for event in events)
        return 200 if skipped else 202, Show(workspace=workspace_id, task=command.task_id)

    answered = await write.execute(workspace_id, command, data, describe)
    rows = answered.rows
    return write.respond(
        answered,
        CurrentAccepted(current_view(present(rows.workspace), write.service.volume), task_view(present(rows.task))),
    )


def _etag(epoch: int) -> str:
    return f'"{epoch}"'


def _epochs(header: str | None) -> frozenset[int] | None:
    condition = parse_if_match(header)
    if condition is None or condition.any_tag:
        return None
    # A tag of another form was never given out by this resource, so it matches nothing.
    return frozenset(int(match[1]) for tag in condition.tags if (match := _ETAG.fullmatch(tag)))


def _snapshot_id_of(data: NewCurrent) -> UUID:
    try:
        return parse_id(SNAPSHOT, data.snapshot_id)
    except InvalidId as error:
        raise refuse_fields(FieldError("body", "snapshot_id", str(error))) from None


def current_view(row: WorkspaceRow, volume: Path) -> CurrentView:
    """The workspace's pointer."""
    return CurrentView(format_optional_id(SNAPSHOT, row.current_snapshot_id), live_link(volume, row.id), row.epoch)


HANDLERS: Final = [get_current, set_current]

_EXAMPLE_SET: Final = queued_task_example(SET_TASK_ID, TaskKind.CURRENT_SET, at(4, 0))
_EXAMPLE_CURRENT: Final = CurrentView(SNAPSHOT_ID, LIVE_LINK, 2)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "getCurrent": Examples({200: {"set": _EXAMPLE_CURRENT}}, parameters=OF_WORKSPACE),
    "setCurrent": Examples(
        {
            202: {"accepted": CurrentAccepted(CurrentView(None, LIVE_LINK, 1), _EXAMPLE_SET)},
            200: {
                "it was current": CurrentAccepted(
                    _EXAMPLE_CURRENT, replace(_EXAMPLE_SET, state=TaskState.SUCCEEDED, noop=True, finished_at=at(4, 0))
                )
            },
        },
        {"a snapshot": NewCurrent(SNAPSHOT_ID), "afresh": NewCurrent(SNAPSHOT_ID, reset=True)},
        {**KEYED_WRITE, "If-Match": '"1"'},
    ),
}
