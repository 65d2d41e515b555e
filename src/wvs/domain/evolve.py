"""`evolve`: a workspace and one event in, the next workspace out. It refuses any step that the tables do not have."""

from collections.abc import Iterable
from typing import assert_never
from uuid import UUID

from msgspec.structs import replace

from wvs.domain import events, lane
from wvs.domain.states import (
    SNAPSHOT_STEPS,
    WORKSPACE_STEPS,
    IllegalStepError,
    SnapshotState,
    TaskKind,
    TaskState,
    WorkspaceState,
    step,
)
from wvs.domain.workspace import Snapshot, Task, Workspace


def fold(workspace_id: UUID, history: Iterable[events.Event], workspace: Workspace | None = None) -> Workspace | None:
    """The workspace after the events of `history`, starting from `workspace` or from nothing."""
    for event in history:
        workspace = evolve(workspace_id, workspace, event)
    return workspace


def evolve(workspace_id: UUID, workspace: Workspace | None, event: events.Event) -> Workspace:
    """The workspace after one more event; raises `IllegalStepError` if the event does not fit the state."""
    after = _apply(workspace_id, workspace, event)
    return replace(after, version=after.version + 1)


def _apply(workspace_id: UUID, workspace: Workspace | None, event: events.Event) -> Workspace:
    match event:
        case events.WorkspaceCreated():
            return _created(workspace_id, workspace, event.task_id)
        case _ if workspace is None:
            raise IllegalStepError(f"{type(event).__name__} cannot be the first event of a workspace.")
        case events.WorkspaceInitialized():
            return _initialized(workspace, event.task_id, event.tree, event.workspace_state)
        case events.WorkspaceInitFailed():
            return lane.ended(_to_state(workspace, WorkspaceState.INIT_FAILED), event.task_id, TaskState.FAILED)
        case events.WorkspaceInitRetried():
            return _init_retried(workspace, event.task_id, new_task=event.new_task)
        case events.WorkspaceDisabled():
            return replace(workspace, state=step(WORKSPACE_STEPS, workspace.state, WorkspaceState.DISABLED))
        case events.SnapshotRequested():
            return _snapshot_requested(workspace, event.snapshot_id, event.task_id)
        case events.SnapshotCreated():
            ready = _snapshot_to(workspace, event.snapshot_id, SnapshotState.READY, tree=event.tree)
            return lane.ended(ready, event.task_id, TaskState.SUCCEEDED)
        case events.SnapshotFailed():
            failed = _snapshot_to(workspace, event.snapshot_id, SnapshotState.FAILED)
            return lane.ended(failed, event.task_id, TaskState.FAILED)
        case events.SnapshotLost():
            return _snapshot_to(workspace, event.snapshot_id, SnapshotState.LOST)
        case events.SnapshotFound():
            return _found(workspace, event.snapshot_id)
        case events.CurrentSetRequested():
            return _set_requested(workspace, event.snapshot_id, event.task_id, reset=event.reset)
        case events.CurrentSetSkipped():
            return _set_skipped(workspace, event.task_id, at_request=event.at_request)
        case events.CurrentSet():
            moved = _moved_to(workspace, event.snapshot_id, event.tree, event.epoch)
            return lane.ended(moved, event.task_id, TaskState.SUCCEEDED)
        case events.CurrentSetFailed():
            return lane.ended(workspace, event.task_id, TaskState.FAILED)
        case events.SnapshotDropRequested():
            return _drop_requested(workspace, event.snapshot_id, event.task_id)
        case events.SnapshotDropped():
            dropped = _snapshot_to(workspace, event.snapshot_id, SnapshotState.DROPPED)
            return lane.ended(dropped, event.task_id, TaskState.SUCCEEDED)
        case events.SnapshotDropFailed():
            drop_failed = _snapshot_to(workspace, event.snapshot_id, SnapshotState.DROP_FAILED)
            return lane.ended(drop_failed, event.task_id, TaskState.FAILED)
        case events.TaskStarted():
            return lane.started(workspace, event)
        case events.TaskAttemptFailed():
            return lane.attempt_failed(workspace, event)
        case events.TaskRetried():
            return lane.retried(_retried_snapshot(workspace, event.kind, event.snapshot_id), event.task_id)
        case events.TaskCancelRequested():
            return lane.cancel_requested(workspace, event.task_id)
        case events.TaskCancelled():
            reverted = _after_cancel(workspace, event.snapshot_id, event.snapshot_state, event.workspace_state)
            return lane.ended(reverted, event.task_id, TaskState.CANCELLED)
        case events.SessionEvicted():
            return workspace
        case _:
            assert_never(event)


def _created(workspace_id: UUID, workspace: Workspace | None, task_id: UUID) -> Workspace:
    if workspace is not None:
        raise IllegalStepError("A workspace is created once.")
    empty = Workspace(workspace_id, 0, WorkspaceState.INITIALIZING, init_task=task_id)
    return lane.accepted(empty, Task(task_id, TaskKind.WORKSPACE_INIT, TaskState.QUEUED))


def _initialized(workspace: Workspace, task_id: UUID, tree: str, state: WorkspaceState) -> Workspace:
    initialized = replace(_to_state(workspace, state), live_tree=tree, epoch=1)
    return lane.ended(initialized, task_id, TaskState.SUCCEEDED)


def _init_retried(workspace: Workspace, task_id: UUID, *, new_task: bool) -> Workspace:
    initializing = replace(_to_state(workspace, WorkspaceState.INITIALIZING), init_task=task_id)
    if new_task:
        return lane.accepted(initializing, Task(task_id, TaskKind.WORKSPACE_INIT, TaskState.QUEUED))
    return lane.retried(initializing, task_id)


def _snapshot_requested(workspace: Workspace, snapshot_id: UUID, task_id: UUID) -> Workspace:
    if snapshot_id in workspace.snapshots:
        raise IllegalStepError(f"Snapshot {snapshot_id} is requested a second time.")
    snapshot = Snapshot(snapshot_id, SnapshotState.CREATING)
    grown = replace(workspace, snapshots=workspace.snapshots.insert(snapshot_id, snapshot))
    return lane.accepted(grown, Task(task_id, TaskKind.SNAPSHOT_CREATE, TaskState.QUEUED, snapshot_id))


def _found(workspace: Workspace, snapshot_id: UUID) -> Workspace:
    """Only a lost snapshot is found. `SNAPSHOT_STEPS` alone would let a drop that began become ready by this event."""
    if lane.known_snapshot(workspace, snapshot_id).state is not SnapshotState.LOST:
        raise IllegalStepError(f"Snapshot {snapshot_id} is found, but it was not lost.")
    return _snapshot_to(workspace, snapshot_id, SnapshotState.READY)


def _drop_requested(workspace: Workspace, snapshot_id: UUID, task_id: UUID) -> Workspace:
    dropping = _to_dropping(workspace, snapshot_id)
    return lane.accepted(dropping, Task(task_id, TaskKind.SNAPSHOT_DROP, TaskState.QUEUED, snapshot_id))


def _set_requested(workspace: Workspace, snapshot_id: UUID, task_id: UUID, *, reset: bool) -> Workspace:
    task = Task(task_id, TaskKind.CURRENT_SET, TaskState.QUEUED, snapshot_id, reset=reset)
    return lane.accepted(workspace, task)


def _set_skipped(workspace: Workspace, task_id: UUID, *, at_request: bool) -> Workspace:
    """A task that was skipped at its request was never in the lane."""
    if not at_request:
        return lane.ended(workspace, task_id, TaskState.SUCCEEDED)
    lane.refuse_known_task(workspace, task_id)
    return replace(workspace, ended=workspace.ended.insert(task_id, TaskState.SUCCEEDED))


def _moved_to(workspace: Workspace, snapshot_id: UUID, tree: str, epoch: int) -> Workspace:
    """The pointer moves. A source that was reported lost during the clone could still be cloned; a source that a drop
    may have removed in part never becomes current.
    """
    source = lane.known_snapshot(workspace, snapshot_id)
    if source.state not in (SnapshotState.READY, SnapshotState.LOST) or epoch != workspace.epoch + 1:
        raise IllegalStepError(f"A {source.state} snapshot cannot become current with epoch {epoch}.")
    return replace(workspace, current=source.id, live_tree=tree, epoch=epoch)


def _retried_snapshot(workspace: Workspace, kind: TaskKind, snapshot_id: UUID) -> Workspace:
    if kind is TaskKind.SNAPSHOT_CREATE:
        return _snapshot_to(workspace, snapshot_id, SnapshotState.CREATING)
    if kind is TaskKind.SNAPSHOT_DROP:
        return _to_dropping(workspace, snapshot_id)
    return workspace


def _after_cancel(
    workspace: Workspace,
    snapshot_id: UUID | None,
    snapshot_state: SnapshotState | None,
    workspace_state: WorkspaceState | None,
) -> Workspace:
    if snapshot_id is not None and snapshot_state is not None:
        workspace = _snapshot_to(workspace, snapshot_id, snapshot_state)
    return workspace if workspace_state is None else _to_state(workspace, workspace_state)


def _to_state(workspace: Workspace, state: WorkspaceState) -> Workspace:
    """A disabled workspace records the outcome of what was running, and stays disabled."""
    if workspace.state is state is WorkspaceState.DISABLED:
        return workspace
    return replace(workspace, state=step(WORKSPACE_STEPS, workspace.state, state))


def _snapshot_to(workspace: Workspace, snapshot_id: UUID, state: SnapshotState, tree: str | None = None) -> Workspace:
    before = lane.known_snapshot(workspace, snapshot_id)
    after = replace(before, state=step(SNAPSHOT_STEPS, before.state, state), tree=tree or before.tree)
    return replace(workspace, snapshots=workspace.snapshots.insert(snapshot_id, after))


def _to_dropping(workspace: Workspace, snapshot_id: UUID) -> Workspace:
    before = lane.known_snapshot(workspace, snapshot_id)
    moved = _snapshot_to(workspace, snapshot_id, SnapshotState.DROPPING)
    after = replace(moved.snapshots[snapshot_id], before_drop=before.state)
    return replace(moved, snapshots=moved.snapshots.insert(snapshot_id, after))
