"""Snapshots of a workspace: create, list, get, drop."""

import re
from typing import Annotated, Final
from uuid import UUID

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Struct

from wvs.domain.commands import CreateSnapshot, DropSnapshot
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.ids import SNAPSHOT, InvalidId, parse_id
from wvs.domain.states import SnapshotState
from wvs.domain.values import LABEL_KEY_PATTERN, Labels, Message
from wvs.http.openapi.responses import problem_responses
from wvs.http.problems.problem import FieldError, refuse_fields
from wvs.http.requests.paging import next_cursor, start_of
from wvs.http.requests.paths import SnapshotPath, WorkspacePath
from wvs.http.resources.answers import ACCEPTED_HEADERS, KEY_PROBLEMS
from wvs.http.service import Service, new_id
from wvs.http.views import SnapshotAccepted, SnapshotList, SnapshotView
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit
from wvs.http.writes import Answered, Write, accepted, shown
from wvs.projections.listings import SnapshotFilter

_LIST: Final = "/v1/workspaces/{workspace:str}/snapshots"
_ONE: Final = "/v1/workspaces/{workspace:str}/snapshots/{snapshot:str}"

_MAX_LABELS: Final = 8
_LABEL_PATTERN: Final = rf"^{LABEL_KEY_PATTERN.strip('^$')}=[^\u0000]{{0,255}}$"
_LABEL: Final = re.compile(_LABEL_PATTERN)

_Labels = Annotated[
    list[str] | None,
    QueryParameter(
        max_items=_MAX_LABELS,
        description="`key=value`, repeated: snapshots that have all of these labels.",
        schema_extra={"items": {"type": "string", "pattern": _LABEL_PATTERN}},
    ),
]


class NewSnapshot(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A snapshot to be."""

    message: Message | None = None
    labels: Labels = {}


@post(
    _LIST,
    status_code=202,
    operation_id="createSnapshot",
    responses=problem_responses(
        *KEY_PROBLEMS,
        ErrorCode.WORKSPACE_NOT_FOUND,
        ErrorCode.WORKSPACE_NOT_ACTIVE,
        ErrorCode.WORKSPACE_DISABLED,
        ErrorCode.WORKSPACE_QUEUE_FULL,
    ),
    response_headers=ACCEPTED_HEADERS,
)
async def create_snapshot(
    workspace: WorkspacePath, write: NamedDependency[Write], data: JSONBody[NewSnapshot | None] = None
) -> Response[SnapshotAccepted]:
    """Asks for a snapshot of the live tree, as it will be when the task freezes the workspace."""
    workspace_id = await write.service.workspace_id(workspace)
    wanted, snapshot_id, task_id = data or NewSnapshot(), new_id(), new_id()
    command = CreateSnapshot(snapshot_id, task_id, wanted.message, wanted.labels)
    answered = await write.execute(workspace_id, command, wanted, accepted(snapshot=snapshot_id, task=task_id))
    return _answer(write, answered)


@get(
    _LIST,
    operation_id="listSnapshots",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.INVALID_CURSOR),
)
async def list_snapshots(
    workspace: WorkspacePath,
    service: NamedDependency[Service],
    state_filter: Annotated[SnapshotState | None, QueryParameter(name="state")] = None,
    label: _Labels = None,
    include_deleted: Annotated[bool, QueryParameter(description="Show dropped ones too.")] = False,  # noqa: FBT002
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> SnapshotList:
    """Lists the snapshots of a workspace, newest first."""
    row = await service.workspace(workspace)
    wanted = SnapshotFilter(row.id, state_filter, _labels(label), include_deleted)
    found = await service.listings.snapshots(wanted, start_of(cursor, _LIST, wanted), limit)
    return SnapshotList([service.views.snapshot(row) for row in found.rows], next_cursor(found, _LIST, wanted))


@get(
    _ONE,
    operation_id="getSnapshot",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.SNAPSHOT_NOT_FOUND),
)
async def get_snapshot(
    workspace: WorkspacePath, snapshot: SnapshotPath, service: NamedDependency[Service]
) -> SnapshotView:
    """Shows one snapshot, dropped or not, with the certificate that proves its consistency."""
    workspace_row, snapshot_id = await service.workspace(workspace), _snapshot_id(snapshot)
    row = await service.readers.snapshot(workspace_row.id, snapshot_id)
    if row is None:
        raise Refused(ErrorCode.SNAPSHOT_NOT_FOUND, f"workspace {workspace_row.name} has no snapshot {snapshot}")
    return service.views.snapshot(row)


@delete(
    _ONE,
    status_code=202,
    operation_id="dropSnapshot",
    responses=problem_responses(
        *KEY_PROBLEMS,
        ErrorCode.WORKSPACE_NOT_FOUND,
        ErrorCode.SNAPSHOT_NOT_FOUND,
        ErrorCode.WORKSPACE_NOT_ACTIVE,
        ErrorCode.WORKSPACE_DISABLED,
        ErrorCode.SNAPSHOT_IN_USE,
        ErrorCode.SNAPSHOT_DROPPED,
        ErrorCode.WORKSPACE_QUEUE_FULL,
    ),
    response_headers=ACCEPTED_HEADERS,
)
async def drop_snapshot(
    workspace: WorkspacePath, snapshot: SnapshotPath, write: NamedDependency[Write]
) -> Response[SnapshotAccepted]:
    """Drops a snapshot that nothing refers to; where something does, `blockers` names all of it."""
    workspace_id, snapshot_id = await write.service.workspace_id(workspace), _snapshot_id(snapshot)
    task_id = new_id()
    command = DropSnapshot(snapshot_id, task_id)
    answered = await write.execute(workspace_id, command, None, accepted(snapshot=snapshot_id, task=task_id))
    return _answer(write, answered)


def _labels(given: list[str] | None) -> tuple[str, ...]:
    labels = sorted(set(given or ()))
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise refuse_fields(FieldError("query", "label", "must be key=value, as a label is written"))
    return tuple(labels)


def _answer(write: Write, answered: Answered) -> Response[SnapshotAccepted]:
    views, rows = write.service.views, answered.rows
    content = SnapshotAccepted(views.snapshot(shown(rows.snapshot)), views.task(shown(rows.task)))
    return write.respond(answered, content)


def _snapshot_id(text: str) -> UUID:
    try:
        return parse_id(SNAPSHOT, text)
    except InvalidId as error:
        raise Refused(ErrorCode.SNAPSHOT_NOT_FOUND, str(error)) from None


HANDLERS: Final = [create_snapshot, list_snapshots, get_snapshot, drop_snapshot]
