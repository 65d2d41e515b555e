"""Snapshots of a workspace: create, list, get, drop."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Struct
from msgspec.structs import replace

from wvs.domain.commands import CreateSnapshot, DropSnapshot
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.ids import SESSION, SNAPSHOT, WORKSPACE, format_id
from wvs.domain.states import SnapshotState, TaskKind
from wvs.domain.values import (
    LABEL_KEY_PATTERN,
    Bystander,
    Bystanders,
    Certificate,
    FrozenProcesses,
    Labels,
    Message,
    TaskError,
)
from wvs.http.openapi.examples import (
    DROP_TASK_ID,
    KEYED_WRITE,
    OF_WORKSPACE,
    SESSION_ID,
    SNAPSHOT_ID,
    WORKSPACE_ID,
    Examples,
    at,
)
from wvs.http.openapi.headers import ACCEPTED_HEADERS
from wvs.http.openapi.responses import KEY_PROBLEMS, problem_responses
from wvs.http.problems.problem import FieldError, refuse_fields
from wvs.http.requests.paging import next_cursor, start_of
from wvs.http.requests.paths import SnapshotPath, WorkspacePath, snapshot_id_of
from wvs.http.resources.tasks import EXAMPLE_CREATE, TaskView, queued_task_example, written_task
from wvs.http.service import Service, new_id
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit
from wvs.http.wire.ids import SessionId, SnapshotId, WorkspaceId
from wvs.http.writes import WriteRequest, WriteResult, accepted, present
from wvs.projections.listings import SnapshotFilter
from wvs.readmodel.rows import SnapshotRow

_LIST: Final = "/v1/workspaces/{workspace:str}/snapshots"
_ONE: Final = "/v1/workspaces/{workspace:str}/snapshots/{snapshot:str}"

_MAX_LABELS: Final = 8
_LABEL_PATTERN: Final = rf"^{LABEL_KEY_PATTERN.strip('^$')}=[^\u0000]{{0,255}}$"
_LABEL: Final = re.compile(_LABEL_PATTERN)

_Labels = Annotated[
    list[str] | None,
    QueryParameter(
        max_items=_MAX_LABELS,
        description="`key=value`; may be repeated: only snapshots with all of these labels.",
        schema_extra={"items": {"type": "string", "pattern": _LABEL_PATTERN}},
    ),
]


class NewSnapshot(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A new snapshot."""

    message: Message | None = None
    labels: Labels = {}


class MemberView(Struct, frozen=True):
    """One session's part in a freeze. `frozen` names what it stopped; null if its agent did not report it."""

    session_id: SessionId
    token: str
    flush: str
    frozen: FrozenProcesses | None


class CertificateView(Struct, frozen=True, kw_only=True):
    """Proof that no process wrote while the tree was cloned. `vacuous`: no session was registered.

    From `frozen_at` to `resumed_at` all members were stopped: each one stopped before and resumed after. `bystanders`
    are processes that held the live tree and were not stopped, and where WVS could not look for them; null if nobody
    looked.
    """

    freeze: int
    vacuous: bool
    members: list[MemberView]
    stamp_before: str
    stamp_after: str
    engine: str
    frozen_at: datetime
    resumed_at: datetime
    bystanders: Bystanders | None


class SnapshotView(Struct, frozen=True, kw_only=True):
    """A snapshot. `files` and `bytes` are null if the engine clones without reading single files.

    `notes` says what the engine could not keep (what, how often, and the first path), which filesystems were mounted in
    the live tree and are not in the snapshot, and which bystanders there were.
    """

    id: SnapshotId
    workspace_id: WorkspaceId
    state: SnapshotState
    message: str | None
    labels: dict[str, str]
    engine: str | None
    files: int | None
    bytes: int | None
    notes: list[str]
    certificate: CertificateView | None
    error: TaskError | None
    created_at: datetime
    ready_at: datetime | None
    deleted_at: datetime | None


class SnapshotAccepted(Struct, frozen=True):
    """A snapshot and its task."""

    snapshot: SnapshotView
    task: TaskView


class SnapshotList(Struct, frozen=True):
    """Snapshots, newest first; `next_cursor` is null at the end."""

    items: list[SnapshotView]
    next_cursor: str | None


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
    workspace: WorkspacePath, write: NamedDependency[WriteRequest], data: JSONBody[NewSnapshot | None] = None
) -> Response[SnapshotAccepted]:
    """Requests a snapshot of the live tree. It will show the tree at the moment when the task freezes the workspace."""
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
    include_deleted: Annotated[bool, QueryParameter(description="Include dropped snapshots.")] = False,  # noqa: FBT002
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> SnapshotList:
    """Lists the snapshots of a workspace, newest first."""
    row = await service.workspace(workspace)
    wanted = SnapshotFilter(row.id, state_filter, _labels(label), include_deleted)
    found = await service.listings.snapshots(wanted, start_of(cursor, _LIST, wanted), limit)
    return SnapshotList([snapshot_view(row) for row in found.rows], next_cursor(found, _LIST, wanted))


@get(
    _ONE,
    operation_id="getSnapshot",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.SNAPSHOT_NOT_FOUND),
)
async def get_snapshot(
    workspace: WorkspacePath, snapshot: SnapshotPath, service: NamedDependency[Service]
) -> SnapshotView:
    """Shows one snapshot, dropped or not, with the certificate that proves its consistency."""
    workspace_row, snapshot_id = await service.workspace(workspace), snapshot_id_of(snapshot)
    row = await service.readers.snapshot(workspace_row.id, snapshot_id)
    if row is None:
        raise Refused(ErrorCode.SNAPSHOT_NOT_FOUND, f"workspace {workspace_row.name} has no snapshot {snapshot}")
    return snapshot_view(row)


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
    workspace: WorkspacePath, snapshot: SnapshotPath, write: NamedDependency[WriteRequest]
) -> Response[SnapshotAccepted]:
    """Drops a snapshot that is not in use. If it is in use, `blockers` names every reason."""
    workspace_id, snapshot_id = await write.service.workspace_id(workspace), snapshot_id_of(snapshot)
    task_id = new_id()
    command = DropSnapshot(snapshot_id, task_id)
    answered = await write.execute(workspace_id, command, None, accepted(snapshot=snapshot_id, task=task_id))
    return _answer(write, answered)


def _labels(given: list[str] | None) -> tuple[str, ...]:
    labels = sorted(set(given or ()))
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise refuse_fields(
            FieldError("query", "label", "must be key=value, with a key and a value that a label may have")
        )
    return tuple(labels)


def _answer(write: WriteRequest, answered: WriteResult) -> Response[SnapshotAccepted]:
    rows = answered.rows
    content = SnapshotAccepted(snapshot_view(present(rows.snapshot)), written_task(write, answered))
    return write.respond(answered, content)


def snapshot_view(row: SnapshotRow) -> SnapshotView:
    """The snapshot as the API shows it."""
    return SnapshotView(
        id=format_id(SNAPSHOT, row.id),
        workspace_id=format_id(WORKSPACE, row.workspace_id),
        state=row.state,
        message=row.message,
        labels=row.labels,
        engine=row.engine,
        files=row.files,
        bytes=row.bytes,
        notes=[] if row.report is None else list(row.report.notes),
        certificate=None if row.certificate is None else _certificate(row.certificate),
        error=row.error,
        created_at=row.created_at,
        ready_at=row.ready_at,
        deleted_at=row.deleted_at,
    )


def _certificate(proof: Certificate) -> CertificateView:
    return CertificateView(
        freeze=proof.freeze,
        vacuous=proof.vacuous,
        members=[MemberView(format_id(SESSION, m.session_id), m.token, m.flush, m.frozen) for m in proof.members],
        stamp_before=proof.stamp_before,
        stamp_after=proof.stamp_after,
        engine=proof.engine,
        frozen_at=proof.frozen_at,
        resumed_at=proof.resumed_at,
        bystanders=proof.bystanders,
    )


HANDLERS: Final = [create_snapshot, list_snapshots, get_snapshot, drop_snapshot]

_EXAMPLE_CERTIFICATE: Final = CertificateView(
    freeze=1,
    vacuous=False,
    members=[MemberView(SESSION_ID, "b0f6c0de.1.1", "ok", FrozenProcesses("cgroup", f"wvs-{SESSION_ID}", 7))],
    stamp_before="9b1f3c44",
    stamp_after="9b1f3c44",
    engine="reflink",
    frozen_at=at(2, 0, 41),
    resumed_at=at(2, 0, 96),
    bystanders=Bystanders(1, (Bystander(4711, "vim main.c", "build-3", ("working directory",)),), ()),
)
EXAMPLE_SNAPSHOT: Final = SnapshotView(
    id=SNAPSHOT_ID,
    workspace_id=WORKSPACE_ID,
    state=SnapshotState.READY,
    message="before the refactoring",
    labels={"step": "12"},
    engine="reflink",
    files=1204,
    bytes=18874368,
    notes=["socket: 1, first run/agent.sock"],
    certificate=_EXAMPLE_CERTIFICATE,
    error=None,
    created_at=at(2, 0),
    ready_at=at(2, 0, 131),
    deleted_at=None,
)
EXAMPLE_NEW_SNAPSHOT: Final = replace(
    EXAMPLE_SNAPSHOT,
    state=SnapshotState.CREATING,
    engine=None,
    files=None,
    bytes=None,
    notes=[],
    certificate=None,
    ready_at=None,
)
_EXAMPLE_DROP: Final = queued_task_example(DROP_TASK_ID, TaskKind.SNAPSHOT_DROP, at(8, 0))

EXAMPLES: Final[Mapping[str, Examples]] = {
    "createSnapshot": Examples(
        {202: {"accepted": SnapshotAccepted(EXAMPLE_NEW_SNAPSHOT, EXAMPLE_CREATE)}},
        {"with a message": NewSnapshot("before the refactoring", {"step": "12"}), "empty": NewSnapshot()},
        {**KEYED_WRITE, "Prefer": "wait=10"},
    ),
    "listSnapshots": Examples(
        {200: {"a page": SnapshotList([EXAMPLE_SNAPSHOT], "kTfQ2h0mJm1Xl0aZIjAxOTNhLi4uIg")}},
        parameters={**OF_WORKSPACE, "state": "ready", "label": ["step=12"]},
    ),
    "getSnapshot": Examples({200: {"ready": EXAMPLE_SNAPSHOT}}, parameters={**OF_WORKSPACE, "snapshot": SNAPSHOT_ID}),
    "dropSnapshot": Examples(
        {202: {"accepted": SnapshotAccepted(replace(EXAMPLE_SNAPSHOT, state=SnapshotState.DROPPING), _EXAMPLE_DROP)}},
        parameters={**KEYED_WRITE, "snapshot": SNAPSHOT_ID},
    ),
}
