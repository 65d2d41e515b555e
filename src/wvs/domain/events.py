"""The events: facts in the past tense, each with an explicit, versioned name that is stored forever.

A name is never reused for another shape: a changed event gets `.v2` and an upcaster. Each event carries everything
that the projector needs, so that a read model's change is a pure function of the event alone.
"""

from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from msgspec import Struct

from wvs.domain.states import SnapshotState, TaskKind, WorkspaceState
from wvs.domain.values import Certificate, CloneReport, TaskError


class Fact(Struct, frozen=True, forbid_unknown_fields=True):
    """The base of all events. A stored field that this release does not know is an error, as an unknown name is."""


class WorkspaceCreated(Fact, frozen=True, tag="workspace.created.v2"):
    """A client created a workspace; its init task is queued. A name is unique among the workspaces of one tenant.

    `volume_id` is the identity of the volume that holds the workspace's trees, None where the database knew no volume.
    """

    name: str
    labels: dict[str, str]
    task_id: UUID
    tenant: str
    volume_id: UUID | None


class WorkspaceInitialized(Fact, frozen=True, tag="workspace.initialized.v1"):
    """The live tree exists; the workspace is active, unless it was disabled meanwhile (`workspace_state`)."""

    task_id: UUID
    fence: int
    tree: str
    engine: str
    workspace_state: WorkspaceState


class WorkspaceInitFailed(Fact, frozen=True, tag="workspace.init_failed.v1"):
    """The init task failed and is not retried unless a person asks for it.

    The workspace is never disabled at this point: disabling asks the init task to cancel, and the task then ends as
    cancelled.
    """

    task_id: UUID
    fence: int
    attempt: int
    error: TaskError
    tree: str | None


class WorkspaceInitRetried(Fact, frozen=True, tag="workspace.init_retried.v1"):
    """Initialisation starts over; `new_task` says that the earlier init task had been abandoned."""

    task_id: UUID
    new_task: bool


class WorkspaceDisabled(Fact, frozen=True, tag="workspace.disabled.v1"):
    """Final by decision: data stays, reads work, writes are refused."""

    reason: str | None


class SnapshotRequested(Fact, frozen=True, tag="snapshot.requested.v1"):
    """A client requested a snapshot; its task is queued."""

    snapshot_id: UUID
    task_id: UUID
    message: str | None
    labels: dict[str, str]


class SnapshotCreated(Fact, frozen=True, tag="snapshot.created.v1"):
    """The tree is on stable storage and its consistency is proven."""

    snapshot_id: UUID
    task_id: UUID
    fence: int
    tree: str
    report: CloneReport
    certificate: Certificate


class SnapshotFailed(Fact, frozen=True, tag="snapshot.failed.v1"):
    """The task of this snapshot failed and is not retried unless a person asks for it."""

    snapshot_id: UUID
    task_id: UUID
    fence: int
    attempt: int
    error: TaskError
    tree: str | None


class SnapshotLost(Fact, frozen=True, tag="snapshot.lost.v1"):
    """The directory of a ready snapshot was found missing."""

    snapshot_id: UUID
    tree: str
    detail: str


class SnapshotFound(Fact, frozen=True, tag="snapshot.found.v1"):
    """The directory of a lost snapshot is there again, and is what the event of its creation says."""

    snapshot_id: UUID
    tree: str
    detail: str


class CurrentSetRequested(Fact, frozen=True, tag="current.set_requested.v1"):
    """A client requested that a clone of a snapshot replace the live tree; the task is queued."""

    snapshot_id: UUID
    task_id: UUID
    reset: bool


class CurrentSetSkipped(Fact, frozen=True, tag="current.set_skipped.v1"):
    """The snapshot was current already: the task succeeded without a freeze or a clone (rule 2).

    `at_request` is true for a task that was never queued, false for a task that an executor had started.
    """

    snapshot_id: UUID
    task_id: UUID
    at_request: bool


class CurrentSet(Fact, frozen=True, tag="current.set.v1"):
    """Pointer, live tree and epoch moved together."""

    snapshot_id: UUID
    task_id: UUID
    fence: int
    tree: str
    retired_tree: str | None
    epoch: int
    report: CloneReport
    certificate: Certificate


class CurrentSetFailed(Fact, frozen=True, tag="current.set_failed.v1"):
    """The task failed and is not retried unless a person asks for it; the pointer did not move."""

    snapshot_id: UUID
    task_id: UUID
    fence: int
    attempt: int
    error: TaskError
    tree: str | None


class SnapshotDropRequested(Fact, frozen=True, tag="snapshot.drop_requested.v1"):
    """Nothing references the snapshot; it cannot become current unless this drop is cancelled in time."""

    snapshot_id: UUID
    task_id: UUID


class SnapshotDropped(Fact, frozen=True, tag="snapshot.dropped.v1"):
    """The directory is gone and its parent synced (rule 4)."""

    snapshot_id: UUID
    task_id: UUID
    fence: int
    tree: str | None


class SnapshotDropFailed(Fact, frozen=True, tag="snapshot.drop_failed.v1"):
    """The drop failed and may have removed a part of the directory; a retry or a new drop removes the rest."""

    snapshot_id: UUID
    task_id: UUID
    fence: int
    attempt: int
    error: TaskError


class TaskStarted(Fact, frozen=True, tag="task.started.v1"):
    """An executor started the task. `tree` is the directory that it intends to make, named before it exists."""

    task_id: UUID
    kind: TaskKind
    attempt: int
    fence: int
    executor: str
    tree: str | None


class TaskAttemptFailed(Fact, frozen=True, tag="task.attempt_failed.v1"):
    """An attempt failed and the task waits for its next one. `counted` is false if an executor handed the task back.

    `touched` says whether a drop has begun to remove its directory: only before that a cancel keeps the snapshot.
    """

    task_id: UUID
    kind: TaskKind
    attempt: int
    fence: int
    error: TaskError
    tree: str | None
    delay_s: float
    next_attempt_at: datetime
    counted: bool
    touched: bool


class TaskRetried(Fact, frozen=True, tag="task.retried.v1"):
    """A person queued a failed task again, behind the tasks accepted since. Init tasks have `WorkspaceInitRetried`."""

    task_id: UUID
    kind: TaskKind
    snapshot_id: UUID


class TaskCancelRequested(Fact, frozen=True, tag="task.cancel_requested.v1"):
    """A client asked a running task to stop at its next safe point."""

    task_id: UUID


class TaskCancelled(Fact, frozen=True, tag="task.cancelled.v1"):
    """The task ended without its effect. The states are the new ones of its snapshot and workspace, or None."""

    task_id: UUID
    kind: TaskKind
    snapshot_id: UUID | None
    snapshot_state: SnapshotState | None
    workspace_state: WorkspaceState | None
    reason: str
    tree: str | None


class SessionEvicted(Fact, frozen=True, tag="session.evicted.v1"):
    """A person removed a session from those that a freeze waits for, and takes the responsibility for its writes."""

    session_id: UUID
    reason: str | None


Event: TypeAlias = (
    WorkspaceCreated
    | WorkspaceInitialized
    | WorkspaceInitFailed
    | WorkspaceInitRetried
    | WorkspaceDisabled
    | SnapshotRequested
    | SnapshotCreated
    | SnapshotFailed
    | SnapshotLost
    | SnapshotFound
    | CurrentSetRequested
    | CurrentSetSkipped
    | CurrentSet
    | CurrentSetFailed
    | SnapshotDropRequested
    | SnapshotDropped
    | SnapshotDropFailed
    | TaskStarted
    | TaskAttemptFailed
    | TaskRetried
    | TaskCancelRequested
    | TaskCancelled
    | SessionEvicted
)
