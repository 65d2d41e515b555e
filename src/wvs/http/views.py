"""What the API shows: typed ids, times in UTC, and exactly the fields of the contract."""

from datetime import datetime
from pathlib import Path
from uuid import UUID

from msgspec import Struct

from wvs.domain.ids import SESSION, SNAPSHOT, TASK, WORKSPACE, format_id
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.domain.values import Certificate, TaskError
from wvs.engines.paths import current_path
from wvs.http.wire.ids import SessionId, SnapshotId, TaskId, WorkspaceId
from wvs.readmodel.rows import ProgressRow, SnapshotRow, TaskRow, WorkspaceRow


class WorkspaceView(Struct, frozen=True, kw_only=True):
    """A workspace. `path` is the stable link to its live tree on the volume's hosts."""

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


class MemberView(Struct, frozen=True):
    """One session's part in a freeze."""

    session_id: SessionId
    token: str
    flush: str


class CertificateView(Struct, frozen=True, kw_only=True):
    """Proof that nothing wrote while the tree was cloned; `vacuous`: no session was registered.

    From `frozen_at` to `resumed_at` all members stood still together: each stopped before, and went on after.
    """

    freeze: int
    vacuous: bool
    members: list[MemberView]
    stamp_before: str
    stamp_after: str
    engine: str
    frozen_at: datetime
    resumed_at: datetime


class SnapshotView(Struct, frozen=True, kw_only=True):
    """A snapshot; `files` and `bytes` are null where the engine clones without looking at files."""

    id: SnapshotId
    workspace_id: WorkspaceId
    state: SnapshotState
    message: str | None
    labels: dict[str, str]
    engine: str | None
    files: int | None
    bytes: int | None
    certificate: CertificateView | None
    error: TaskError | None
    created_at: datetime
    ready_at: datetime | None
    deleted_at: datetime | None


class TaskView(Struct, frozen=True, kw_only=True):
    """A task; `progress` is null until a running attempt reports some."""

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
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None


class CurrentView(Struct, frozen=True):
    """The pointer: the snapshot that the live tree was last made from, and its epoch, which is also the ETag."""

    snapshot_id: SnapshotId | None
    path: str
    epoch: int


class WorkspaceAccepted(Struct, frozen=True):
    """A workspace and the task that works on it."""

    workspace: WorkspaceView
    task: TaskView


class SnapshotAccepted(Struct, frozen=True):
    """A snapshot and the task that works on it."""

    snapshot: SnapshotView
    task: TaskView


class CurrentAccepted(Struct, frozen=True):
    """The pointer and the task that moves it."""

    current: CurrentView
    task: TaskView


class WorkspaceList(Struct, frozen=True):
    """Workspaces, newest first; `next_cursor` is null at the end."""

    items: list[WorkspaceView]
    next_cursor: str | None


class SnapshotList(Struct, frozen=True):
    """Snapshots, newest first; `next_cursor` is null at the end."""

    items: list[SnapshotView]
    next_cursor: str | None


class TaskList(Struct, frozen=True):
    """Tasks, newest first; `next_cursor` is null at the end."""

    items: list[TaskView]
    next_cursor: str | None


class Views:
    """Makes views of rows; knows where the volume is mounted on the hosts of the agents."""

    def __init__(self, volume: Path) -> None:
        self.volume = volume

    def workspace(self, row: WorkspaceRow) -> WorkspaceView:
        """The workspace as the API shows it."""
        return WorkspaceView(
            id=format_id(WORKSPACE, row.id),
            name=row.name,
            state=row.state,
            labels=row.labels,
            current_snapshot_id=_snapshot_id(row.current_snapshot_id),
            path=self._path(row.id),
            epoch=row.epoch,
            error=row.error,
            created_at=row.created_at,
            disabled_at=row.disabled_at,
        )

    def current(self, row: WorkspaceRow) -> CurrentView:
        """The workspace's pointer."""
        return CurrentView(_snapshot_id(row.current_snapshot_id), self._path(row.id), row.epoch)

    def snapshot(self, row: SnapshotRow) -> SnapshotView:
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
            certificate=None if row.certificate is None else _certificate(row.certificate),
            error=row.error,
            created_at=row.created_at,
            ready_at=row.ready_at,
            deleted_at=row.deleted_at,
        )

    def task(self, row: TaskRow) -> TaskView:
        """The task as the API shows it."""
        return TaskView(
            id=format_id(TASK, row.id),
            workspace_id=format_id(WORKSPACE, row.workspace_id),
            snapshot_id=_snapshot_id(row.snapshot_id),
            kind=row.kind,
            state=row.state,
            noop=row.noop,
            attempt=row.attempt,
            max_attempts=row.max_attempts,
            progress=row.progress,
            error=row.error,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            next_attempt_at=row.next_attempt_at,
        )

    def _path(self, workspace_id: UUID) -> str:
        return current_path(str(self.volume), format_id(WORKSPACE, workspace_id))


def _snapshot_id(value: UUID | None) -> str | None:
    return None if value is None else format_id(SNAPSHOT, value)


def _certificate(proof: Certificate) -> CertificateView:
    return CertificateView(
        freeze=proof.freeze,
        vacuous=proof.vacuous,
        members=[MemberView(format_id(SESSION, m.session_id), m.token, m.flush) for m in proof.members],
        stamp_before=proof.stamp_before,
        stamp_after=proof.stamp_after,
        engine=proof.engine,
        frozen_at=proof.frozen_at,
        resumed_at=proof.resumed_at,
    )
