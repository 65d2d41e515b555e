"""`evolve`: a workspace and one event in, the next workspace out. Refuses any step that the tables do not have."""

from collections.abc import Iterable
from typing import assert_never
from uuid import UUID

from msgspec.structs import replace

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
    TASK_STEPS,
    WORKSPACE_STEPS,
    IllegalStepError,
    SnapshotState,
    TaskKind,
    TaskState,
    WorkspaceState,
    step,
)
from wvs.domain.workspace import Snapshot, Task, Workspace

_FINAL = (TaskState.SUCCEEDED, TaskState.CANCELLED)


def fold(workspace_id: UUID, events: Iterable[Event], workspace: Workspace | None = None) -> Workspace | None:
    """The workspace after `events`, starting from `workspace` or from nothing."""
    for event in events:
        workspace = evolve(workspace_id, workspace, event)
    return workspace


def evolve(workspace_id: UUID, workspace: Workspace | None, event: Event) -> Workspace:
    """The workspace after one more event; raises `IllegalStepError` if the event does not fit the state."""
    if isinstance(event, WorkspaceCreated):
        if workspace is not None:
            raise IllegalStepError("A workspace is created once.")
        born = Workspace(workspace_id, 1, WorkspaceState.INITIALIZING, init_task=event.task_id)
        return _enqueue(born, Task(event.task_id, TaskKind.WORKSPACE_INIT, TaskState.QUEUED))
    if workspace is None:
        raise IllegalStepError(f"{type(event).__name__} is no beginning of a workspace.")
    return replace(_apply(workspace, event), version=workspace.version + 1)


def _apply(workspace: Workspace, event: Event) -> Workspace:
    match event:
        case WorkspaceCreated() | WorkspaceInitialized() | WorkspaceInitFailed() | WorkspaceInitRetried():
            return _apply_init(workspace, event)
        case WorkspaceDisabled():
            return _to_state(workspace, WorkspaceState.DISABLED)
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
    event: WorkspaceCreated | WorkspaceInitialized | WorkspaceInitFailed | WorkspaceInitRetried,
) -> Workspace:
    match event:
        case WorkspaceInitialized():
            moved = _to_state(workspace, event.workspace_state)
            return _end(replace(moved, live_tree=event.tree, epoch=1), event.task_id, TaskState.SUCCEEDED)
        case WorkspaceInitFailed():
            return _end(_to_state(workspace, event.workspace_state), event.task_id, TaskState.FAILED)
        case WorkspaceInitRetried():
            moved = replace(_to_state(workspace, WorkspaceState.INITIALIZING), init_task=event.task_id)
            if event.new_task:
                return _enqueue(moved, Task(event.task_id, TaskKind.WORKSPACE_INIT, TaskState.QUEUED))
            return _requeue(moved, event.task_id)
        case WorkspaceCreated():
            raise IllegalStepError("A workspace is created once.")
        case _:
            assert_never(event)


def _apply_snapshot(
    workspace: Workspace, event: SnapshotRequested | SnapshotCreated | SnapshotFailed | SnapshotLost
) -> Workspace:
    match event:
        case SnapshotRequested():
            born = Snapshot(event.snapshot_id, SnapshotState.CREATING)
            grown = replace(workspace, snapshots=workspace.snapshots.set(born.id, born))
            return _enqueue(grown, Task(event.task_id, TaskKind.SNAPSHOT_CREATE, TaskState.QUEUED, born.id))
        case SnapshotCreated():
            made = _snapshot_to(workspace, event.snapshot_id, SnapshotState.READY, tree=event.tree)
            return _end(made, event.task_id, TaskState.SUCCEEDED)
        case SnapshotFailed():
            return _end(
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
            return _enqueue(moved, Task(event.task_id, TaskKind.SNAPSHOT_DROP, TaskState.QUEUED, event.snapshot_id))
        case SnapshotDropped():
            gone = _snapshot_to(workspace, event.snapshot_id, SnapshotState.DROPPED)
            return _end(gone, event.task_id, TaskState.SUCCEEDED)
        case SnapshotDropFailed():
            half = _snapshot_to(workspace, event.snapshot_id, SnapshotState.DROP_FAILED)
            return _end(half, event.task_id, TaskState.FAILED)
        case _:
            assert_never(event)


def _apply_current(
    workspace: Workspace, event: CurrentSetRequested | CurrentSetSkipped | CurrentSet | CurrentSetFailed
) -> Workspace:
    match event:
        case CurrentSetRequested():
            task = Task(event.task_id, TaskKind.CURRENT_SET, TaskState.QUEUED, event.snapshot_id, reset=event.reset)
            return _enqueue(workspace, task)
        case CurrentSetSkipped(at_request=True):
            return replace(workspace, ended=workspace.ended.set(event.task_id, TaskState.SUCCEEDED))
        case CurrentSetSkipped():
            return _end(workspace, event.task_id, TaskState.SUCCEEDED)
        case CurrentSet():
            moved = replace(workspace, current=event.snapshot_id, live_tree=event.tree, epoch=event.epoch)
            return _end(moved, event.task_id, TaskState.SUCCEEDED)
        case CurrentSetFailed():
            return _end(workspace, event.task_id, TaskState.FAILED)
        case _:
            assert_never(event)


def _apply_task(
    workspace: Workspace,
    event: TaskStarted | TaskAttemptFailed | TaskRetried | TaskCancelRequested | TaskCancelled,
) -> Workspace:
    match event:
        case TaskStarted():
            return _started(workspace, event)
        case TaskAttemptFailed():
            return _attempt_failed(workspace, event)
        case TaskRetried():
            return _requeue(_retried_snapshot(workspace, event), event.task_id)
        case TaskCancelRequested():
            return _with_task(workspace, replace(workspace.tasks[event.task_id], cancel_requested=True))
        case TaskCancelled():
            if event.snapshot_id is not None and event.snapshot_state is not None:
                workspace = _snapshot_to(workspace, event.snapshot_id, event.snapshot_state)
            if event.workspace_state is not None:
                workspace = _to_state(workspace, event.workspace_state)
            return _end(workspace, event.task_id, TaskState.CANCELLED)
        case _:
            assert_never(event)


def _started(workspace: Workspace, event: TaskStarted) -> Workspace:
    before = workspace.tasks[event.task_id]
    task = replace(
        before,
        state=step(TASK_STEPS, before.state, TaskState.RUNNING),
        attempt=event.attempt,
        fence=event.fence,
        tree=event.tree,
    )
    if event.fence <= workspace.fence or workspace.queued[:1] != (task.id,):
        raise IllegalStepError("A task starts at the head of its lane, under a fence that grew.")
    return _with_task(replace(workspace, running=task.id, queued=workspace.queued[1:], fence=event.fence), task)


def _attempt_failed(workspace: Workspace, event: TaskAttemptFailed) -> Workspace:
    """The task keeps its place at the head of the lane, so that order is kept."""
    before = workspace.tasks[event.task_id]
    task = replace(
        before,
        state=step(TASK_STEPS, before.state, TaskState.QUEUED),
        attempt=event.attempt if event.counted else event.attempt - 1,
        tree=None,
        touched=True,
    )
    return _with_task(replace(workspace, running=None, queued=(task.id, *workspace.queued)), task)


def _retried_snapshot(workspace: Workspace, event: TaskRetried) -> Workspace:
    if event.snapshot_id is None:
        return workspace
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
    before = workspace.snapshots[snapshot_id]
    after = replace(before, state=step(SNAPSHOT_STEPS, before.state, state), tree=tree or before.tree)
    return replace(workspace, snapshots=workspace.snapshots.set(snapshot_id, after))


def _to_dropping(workspace: Workspace, snapshot_id: UUID) -> Workspace:
    before = workspace.snapshots[snapshot_id]
    moved = _snapshot_to(workspace, snapshot_id, SnapshotState.DROPPING)
    after = replace(moved.snapshots[snapshot_id], before_drop=before.state)
    return replace(moved, snapshots=moved.snapshots.set(snapshot_id, after))


def _with_task(workspace: Workspace, task: Task) -> Workspace:
    return replace(workspace, tasks=workspace.tasks.set(task.id, task))


def _enqueue(workspace: Workspace, task: Task) -> Workspace:
    movers = (*workspace.movers, task.id) if task.kind is TaskKind.CURRENT_SET else workspace.movers
    grown = replace(_with_task(workspace, task), queued=(*workspace.queued, task.id), movers=movers)
    snapshot = None if task.snapshot_id is None else grown.snapshots[task.snapshot_id]
    if snapshot is None or task.id in snapshot.tasks:
        return grown
    referenced = replace(snapshot, tasks=(*snapshot.tasks, task.id))
    return replace(grown, snapshots=grown.snapshots.set(snapshot.id, referenced))


def _requeue(workspace: Workspace, task_id: UUID) -> Workspace:
    before = workspace.tasks[task_id]
    state = step(TASK_STEPS, before.state, TaskState.QUEUED)
    return _enqueue(workspace, replace(before, state=state, attempt=0, tree=None, cancel_requested=False, touched=True))


def _end(workspace: Workspace, task_id: UUID, state: TaskState) -> Workspace:
    """The task leaves the lane; a failed one stays known in full, because a person may retry it."""
    before = workspace.tasks[task_id]
    task = replace(before, state=step(TASK_STEPS, before.state, state), touched=True)
    left = replace(
        workspace,
        running=None if workspace.running == task_id else workspace.running,
        queued=_without(workspace.queued, task_id),
        movers=_without(workspace.movers, task_id),
    )
    if state not in _FINAL:
        return _with_task(left, task)
    left = replace(left, tasks=left.tasks.delete(task_id), ended=left.ended.set(task_id, state))
    return left if task.snapshot_id is None else _unreference(left, task.snapshot_id, task_id)


def _unreference(workspace: Workspace, snapshot_id: UUID, task_id: UUID) -> Workspace:
    snapshot = workspace.snapshots[snapshot_id]
    freed = replace(snapshot, tasks=_without(snapshot.tasks, task_id))
    return replace(workspace, snapshots=workspace.snapshots.set(snapshot_id, freed))


def _without(ids: tuple[UUID, ...], task_id: UUID) -> tuple[UUID, ...]:
    return tuple(i for i in ids if i != task_id) if task_id in ids else ids
