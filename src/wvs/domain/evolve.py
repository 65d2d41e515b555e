"""`evolve`: a workspace and one event in, the next workspace out. Refuses any step that the tables do not have."""

from collections.abc import Iterable
from typing import assert_never
from uuid import UUID

from msgspec.structs import replace

from wvs.domain import lane
from wvs.domain.events import (
    CurrentSet,
    CurrentSetFailed,
    CurrentSetRequested,
    CurrentSetSkipped,
    Event,
    SessionEvicted,
    SnapshotCreated,
    SnapshotDropFailed,
    SnapshotDropped,
    SnapshotDropRequested,
    SnapshotFailed,
    SnapshotLost,
    SnapshotRequested,
    TaskAttemptFailed,
    TaskCancelled,
    TaskCancelRequested,
    TaskRetried,
    TaskStarted,
    WorkspaceCreated,
    WorkspaceDisabled,
    WorkspaceInitFailed,
    WorkspaceInitialized,
    WorkspaceInitRetried,
)
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


def fold(workspace_id: UUID, events: Iterable[Event], workspace: Workspace | None = None) -> Workspace | None:
    """The workspace after `events`, starting from `workspace` or from nothing."""
    for event in events:
        workspace = evolve(workspace_id, workspace, event)
    return workspace


def evolve(workspace_id: UUID, workspace: Workspace | None, event: Event) -> Workspace:
    """The workspace after one more event; raises `IllegalStepError` if the event does not fit the state."""
    if workspace is None:
        return _born(workspace_id, event)
    return replace(_apply(workspace, event), version=workspace.version + 1)


def _born(workspace_id: UUID, event: Event) -> Workspace:
    if not isinstance(event, WorkspaceCreated):
        raise IllegalStepError(f"{type(event).__name__} is no beginning of a workspace.")
    born = Workspace(workspace_id, 1, WorkspaceState.INITIALIZING, init_task=event.task_id)
    return lane.accepted(born, Task(event.task_id, TaskKind.WORKSPACE_INIT, TaskState.QUEUED))


def _apply(workspace: Workspace, event: Event) -> Workspace:
    match event:
        case WorkspaceCreated():
            raise IllegalStepError("A workspace is created once.")
        case WorkspaceInitialized() | WorkspaceInitFailed() | WorkspaceInitRetried():
            return _apply_init(workspace, event)
        case WorkspaceDisabled():
            return replace(workspace, state=step(WORKSPACE_STEPS, workspace.state, WorkspaceState.DISABLED))
        case SnapshotRequested() | SnapshotCreated() | SnapshotFailed() | SnapshotLost():
            return _apply_snapshot(workspace, event)
        case SnapshotDropRequested() | SnapshotDropped() | SnapshotDropFailed():
            return _apply_drop(workspace, event)
        case CurrentSetRequested() | CurrentSetSkipped() | CurrentSet() | CurrentSetFailed():
            return _apply_current(workspace, event)
        case TaskStarted() | TaskAttemptFailed() | TaskRetried() | TaskCancelRequested() | TaskCancelled():
            return _apply_task(workspace, event)
        case SessionEvicted():
            return workspace
        case _:
            assert_never(event)


def _apply_init(
    workspace: Workspace,
    event: WorkspaceInitialized | WorkspaceInitFailed | WorkspaceInitRetried,
) -> Workspace:
    match event:
        case WorkspaceInitialized():
            moved = _to_state(workspace, event.workspace_state)
            return lane.ended(replace(moved, live_tree=event.tree, epoch=1), event.task_id, TaskState.SUCCEEDED)
        case WorkspaceInitFailed():
            return lane.ended(_to_state(workspace, WorkspaceState.INIT_FAILED), event.task_id, TaskState.FAILED)
        case WorkspaceInitRetried():
            moved = replace(_to_state(workspace, WorkspaceState.INITIALIZING), init_task=event.task_id)
            if event.new_task:
                return lane.accepted(moved, Task(event.task_id, TaskKind.WORKSPACE_INIT, TaskState.QUEUED))
            return lane.retried(moved, event.task_id)
        case _:
            assert_never(event)


def _apply_snapshot(
    workspace: Workspace, event: SnapshotRequested | SnapshotCreated | SnapshotFailed | SnapshotLost
) -> Workspace:
    match event:
        case SnapshotRequested():
            if event.snapshot_id in workspace.snapshots:
                raise IllegalStepError(f"Snapshot {event.snapshot_id} is requested a second time.")
            born = Snapshot(event.snapshot_id, SnapshotState.CREATING)
            grown = replace(workspace, snapshots=workspace.snapshots.insert(born.id, born))
            return lane.accepted(grown, Task(event.task_id, TaskKind.SNAPSHOT_CREATE, TaskState.QUEUED, born.id))
        case SnapshotCreated():
            made = _snapshot_to(workspace, event.snapshot_id, SnapshotState.READY, tree=event.tree)
            return lane.ended(made, event.task_id, TaskState.SUCCEEDED)
        case SnapshotFailed():
            return lane.ended(
                _snapshot_to(workspace, event.snapshot_id, SnapshotState.FAILED), event.task_id, TaskState.FAILED
            )
        case SnapshotLost():
            return _snapshot_to(workspace, event.snapshot_id, SnapshotState.LOST)
        case _:
            assert_never(event)


def _apply_drop(workspace: Workspace, event: SnapshotDropRequested | SnapshotDropped | SnapshotDropFailed) -> Workspace:
    match event:
        case SnapshotDropRequested():
            moved = _to_dropping(workspace, event.snapshot_id)
            return lane.accepted(
                moved, Task(event.task_id, TaskKind.SNAPSHOT_DROP, TaskState.QUEUED, event.snapshot_id)
            )
        case SnapshotDropped():
            gone = _snapshot_to(workspace, event.snapshot_id, SnapshotState.DROPPED)
            return lane.ended(gone, event.task_id, TaskState.SUCCEEDED)
        case SnapshotDropFailed():
            half = _snapshot_to(workspace, event.snapshot_id, SnapshotState.DROP_FAILED)
            return lane.ended(half, event.task_id, TaskState.FAILED)
        case _:
            assert_never(event)


def _apply_current(
    workspace: Workspace, event: CurrentSetRequested | CurrentSetSkipped | CurrentSet | CurrentSetFailed
) -> Workspace:
    match event:
        case CurrentSetRequested():
            task = Task(event.task_id, TaskKind.CURRENT_SET, TaskState.QUEUED, event.snapshot_id, reset=event.reset)
            return lane.accepted(workspace, task)
        case CurrentSetSkipped(at_request=True):
            lane.refuse_known_task(workspace, event.task_id)
            return replace(workspace, ended=workspace.ended.insert(event.task_id, TaskState.SUCCEEDED))
        case CurrentSetSkipped():
            return lane.ended(workspace, event.task_id, TaskState.SUCCEEDED)
        case CurrentSet():
            return lane.ended(_moved_to(workspace, event), event.task_id, TaskState.SUCCEEDED)
        case CurrentSetFailed():
            return lane.ended(workspace, event.task_id, TaskState.FAILED)
        case _:
            assert_never(event)


def _apply_task(
    workspace: Workspace,
    event: TaskStarted | TaskAttemptFailed | TaskRetried | TaskCancelRequested | TaskCancelled,
) -> Workspace:
    match event:
        case TaskStarted():
            return lane.started(workspace, event)
        case TaskAttemptFailed():
            return lane.attempt_failed(workspace, event)
        case TaskRetried():
            return lane.retried(_retried_snapshot(workspace, event), event.task_id)
        case TaskCancelRequested():
            return lane.cancel_requested(workspace, event.task_id)
        case TaskCancelled():
            if event.snapshot_id is not None and event.snapshot_state is not None:
                workspace = _snapshot_to(workspace, event.snapshot_id, event.snapshot_state)
            if event.workspace_state is not None:
                workspace = _to_state(workspace, event.workspace_state)
            return lane.ended(workspace, event.task_id, TaskState.CANCELLED)
        case _:
            assert_never(event)


def _moved_to(workspace: Workspace, event: CurrentSet) -> Workspace:
    """A source reported lost in mid-clone was there to be cloned; one that may be half gone never becomes current."""
    source = lane.known_snapshot(workspace, event.snapshot_id)
    if source.state not in (SnapshotState.READY, SnapshotState.LOST) or event.epoch != workspace.epoch + 1:
        raise IllegalStepError(f"A {source.state} snapshot cannot become current with epoch {event.epoch}.")
    return replace(workspace, current=source.id, live_tree=event.tree, epoch=event.epoch)


def _retried_snapshot(workspace: Workspace, event: TaskRetried) -> Workspace:
    if event.kind is TaskKind.SNAPSHOT_CREATE:
        return _snapshot_to(workspace, event.snapshot_id, SnapshotState.CREATING)
    if event.kind is TaskKind.SNAPSHOT_DROP:
        return _to_dropping(workspace, event.snapshot_id)
    return workspace


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
