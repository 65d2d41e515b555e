"""The states of workspace, snapshot and task, and the complete tables of their transitions (design §2).

These tables are the one source: `evolve` refuses any step that is not in them, the state diagrams in `docs/` are
generated from them, and a test walks every pair of state and command against them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar


class WorkspaceState(StrEnum):
    """`disabled` is final by decision: data stays, reads work, writes are refused."""

    INITIALIZING = "initializing"
    ACTIVE = "active"
    INIT_FAILED = "init_failed"
    DISABLED = "disabled"


class SnapshotState(StrEnum):
    """`dropped` is a soft delete. `lost`: the directory of a ready snapshot is missing; it may be found again."""

    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"
    DROPPING = "dropping"
    DROP_FAILED = "drop_failed"
    DROPPED = "dropped"
    LOST = "lost"


class TaskState(StrEnum):
    """`failed` is final until a person retries or abandons the task; `succeeded` and `cancelled` are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskKind(StrEnum):
    """The asynchronous operations."""

    WORKSPACE_INIT = "workspace_init"
    SNAPSHOT_CREATE = "snapshot_create"
    CURRENT_SET = "current_set"
    SNAPSHOT_DROP = "snapshot_drop"


WORKSPACE_STEPS: Final[Mapping[WorkspaceState, frozenset[WorkspaceState]]] = {
    WorkspaceState.INITIALIZING: frozenset(
        {WorkspaceState.ACTIVE, WorkspaceState.INIT_FAILED, WorkspaceState.DISABLED}
    ),
    WorkspaceState.ACTIVE: frozenset({WorkspaceState.DISABLED}),
    WorkspaceState.INIT_FAILED: frozenset({WorkspaceState.INITIALIZING, WorkspaceState.DISABLED}),
    WorkspaceState.DISABLED: frozenset(),
}

SNAPSHOT_STEPS: Final[Mapping[SnapshotState, frozenset[SnapshotState]]] = {
    SnapshotState.CREATING: frozenset({SnapshotState.READY, SnapshotState.FAILED}),
    SnapshotState.READY: frozenset({SnapshotState.DROPPING, SnapshotState.LOST}),
    SnapshotState.FAILED: frozenset({SnapshotState.CREATING, SnapshotState.DROPPING}),
    # Back to ready only if it was cancelled before anything was touched.
    SnapshotState.DROPPING: frozenset({SnapshotState.DROPPED, SnapshotState.DROP_FAILED, SnapshotState.READY}),
    SnapshotState.DROP_FAILED: frozenset({SnapshotState.DROPPING}),
    SnapshotState.DROPPED: frozenset(),
    SnapshotState.LOST: frozenset({SnapshotState.DROPPING, SnapshotState.READY}),
}

TASK_STEPS: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    TaskState.QUEUED: frozenset({TaskState.RUNNING, TaskState.CANCELLED}),
    TaskState.RUNNING: frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.QUEUED, TaskState.CANCELLED}),
    TaskState.FAILED: frozenset({TaskState.QUEUED, TaskState.CANCELLED}),
    TaskState.SUCCEEDED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}

RETRYABLE_STATES: Final = frozenset({TaskState.QUEUED, TaskState.RUNNING, TaskState.FAILED})
"""A task in one of these holds a reference on the snapshot that it names (design §2)."""


S = TypeVar("S", bound=StrEnum)


class IllegalStepError(Exception):
    """An event asks for a transition that no table allows: the log is damaged or was written by other rules."""


def step(table: Mapping[S, frozenset[S]], now: S, then: S) -> S:
    """`then`, if the table allows the step from `now` to it; raises `IllegalStepError` otherwise."""
    if then not in table[now]:
        raise IllegalStepError(f"{type(now).__name__}: {now} -> {then} is not in the table")
    return then
