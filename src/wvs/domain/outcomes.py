"""Decisions on what executors report. Every report of an attempt names the fence that its executor holds.

A stale fence is refused with `LEASE_LOST` and changes nothing: the executor has to stop the attempt (design §6).
"""

from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, assert_never
from uuid import UUID

from msgspec.structs import replace

from wvs.domain.commands import (
    FailAttempt,
    FinishDrop,
    FinishInit,
    FinishSetCurrent,
    FinishSnapshot,
    HandBack,
    ReportFound,
    ReportLost,
    StartTask,
)
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import (
    CurrentSet,
    CurrentSetFailed,
    CurrentSetSkipped,
    Event,
    SnapshotCreated,
    SnapshotDropFailed,
    SnapshotDropped,
    SnapshotFailed,
    SnapshotFound,
    SnapshotLost,
    TaskAttemptFailed,
    TaskCancelled,
    TaskStarted,
    WorkspaceInitFailed,
    WorkspaceInitialized,
)
from wvs.domain.policy import RETRY, volume_away_delay_s
from wvs.domain.refusals import path_replaced
from wvs.domain.states import IllegalStepError, SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.domain.values import TaskError
from wvs.domain.workspace import Task, Workspace

_HANDED_BACK: Final = TaskError(
    ErrorCode.LEASE_LOST, "The executor shut down and handed the task back.", retryable=True
)


def cancelled(workspace: Workspace, task: Task, reason: str) -> TaskCancelled:
    """The event that ends `task` without its effect, with the states that its snapshot and workspace change to."""
    uninitialised = task.kind is TaskKind.WORKSPACE_INIT and workspace.state is WorkspaceState.INITIALIZING
    return TaskCancelled(
        task_id=task.id,
        kind=task.kind,
        snapshot_id=task.snapshot_id,
        snapshot_state=_snapshot_after_cancel(workspace, task),
        workspace_state=WorkspaceState.INIT_FAILED if uninitialised else None,
        reason=reason,
        tree=task.tree,
    )


def _snapshot_after_cancel(workspace: Workspace, task: Task) -> SnapshotState | None:
    if task.snapshot_id is None or task.state is TaskState.FAILED:
        return None
    match task.kind:
        case TaskKind.SNAPSHOT_CREATE:
            return SnapshotState.FAILED
        case TaskKind.SNAPSHOT_DROP:
            before = workspace.snapshots[task.snapshot_id].before_drop
            untouched = before is SnapshotState.READY and not task.touched
            return SnapshotState.READY if untouched else SnapshotState.DROP_FAILED
        case TaskKind.CURRENT_SET | TaskKind.WORKSPACE_INIT:
            return None
        case _:
            assert_never(task.kind)


def start(command: StartTask, workspace: Workspace) -> list[Event]:
    """The head of the lane starts. If it runs already, its holder is gone: that attempt failed, the next one starts."""
    head = workspace.running or (workspace.queued[0] if workspace.queued else None)
    if head != command.task_id or command.fence <= workspace.fence:
        raise _stale(command.fence, workspace)
    task = workspace.tasks[command.task_id]
    if task.state is not TaskState.RUNNING:
        return _begin(command, workspace, task)
    # The earlier holder is gone and reported nothing: its attempt failed, and only then may the next one start.
    ended = _attempt_failed(workspace, _with_touched(task, touched=True), command.previous, command.now, delay_s=0.0)
    if not isinstance(ended[-1], TaskAttemptFailed):
        return ended
    return [*ended, *_begin(command, workspace, task)]


def _begin(command: StartTask, workspace: Workspace, task: Task) -> list[Event]:
    attempt, fence = task.attempt + 1, command.fence
    if task.kind is not TaskKind.CURRENT_SET:
        return [TaskStarted(task.id, task.kind, attempt, fence, command.executor, command.tree)]
    snapshot = workspace.snapshots[target(task)]
    error: TaskError | None = None
    if changes_nothing(workspace, task):
        if command.path_replaced_by is None:
            started = TaskStarted(task.id, task.kind, attempt, fence, command.executor, tree=None)
            return [started, CurrentSetSkipped(snapshot.id, task.id, at_request=False)]
        error = path_replaced(command.path_replaced_by)
    elif snapshot.state is not SnapshotState.READY:
        error = TaskError(ErrorCode.TREE_MISSING, f"The snapshot became {snapshot.state} while the task waited.")
    if error is None:
        return [TaskStarted(task.id, task.kind, attempt, fence, command.executor, command.tree)]
    started = TaskStarted(task.id, task.kind, attempt, fence, command.executor, tree=None)
    return [started, CurrentSetFailed(snapshot.id, task.id, fence, attempt, error, None)]


def changes_nothing(workspace: Workspace, task: Task) -> bool:
    """Whether the task sets the snapshot that is current, without a reset."""
    return task.kind is TaskKind.CURRENT_SET and workspace.current == target(task) and not task.reset


def finish_init(command: FinishInit, workspace: Workspace) -> list[Event]:
    """The workspace becomes active, unless it was disabled meanwhile."""
    task = _held_as(TaskKind.WORKSPACE_INIT, command, workspace)
    disabled = workspace.state is WorkspaceState.DISABLED
    state = WorkspaceState.DISABLED if disabled else WorkspaceState.ACTIVE
    return [WorkspaceInitialized(task.id, task.fence, command.tree, command.engine, state)]


def finish_snapshot(command: FinishSnapshot, workspace: Workspace) -> list[Event]:
    """The snapshot becomes ready."""
    task = _held_as(TaskKind.SNAPSHOT_CREATE, command, workspace)
    return [SnapshotCreated(target(task), task.id, task.fence, command.tree, command.report, command.certificate)]


def finish_set_current(command: FinishSetCurrent, workspace: Workspace) -> list[Event]:
    """Pointer, live tree and epoch move together."""
    task = _held_as(TaskKind.CURRENT_SET, command, workspace)
    moved = CurrentSet(
        snapshot_id=target(task),
        task_id=task.id,
        fence=task.fence,
        tree=command.tree,
        retired_tree=workspace.live_tree,
        epoch=workspace.epoch + 1,
        report=command.report,
        certificate=command.certificate,
    )
    return [moved]


def finish_drop(command: FinishDrop, workspace: Workspace) -> list[Event]:
    """The snapshot is dropped, which is final."""
    task = _held_as(TaskKind.SNAPSHOT_DROP, command, workspace)
    return [SnapshotDropped(target(task), task.id, task.fence, workspace.snapshots[target(task)].tree)]


def target(task: Task) -> UUID:
    """The snapshot that the task names; raises `IllegalStepError` for a task that needs one and has none."""
    if task.snapshot_id is None:
        raise IllegalStepError(f"Task {task.id} is a {task.kind} and names no snapshot.")
    return task.snapshot_id


def fail_attempt(command: FailAttempt, workspace: Workspace) -> list[Event]:
    """The task waits for its next attempt, fails, or is cancelled if a client requested that."""
    task = _with_touched(_held(command.task_id, command.fence, workspace), touched=command.touched)
    if command.volume_away:
        return _wait_for_volume(command, workspace, task)
    delay_s = RETRY[task.kind].delay_s(task.attempt, command.jitter)
    return _attempt_failed(workspace, task, command.error, command.now, delay_s)


def _wait_for_volume(command: FailAttempt, workspace: Workspace, task: Task) -> list[Event]:
    """The task waits for the volume for as long as an attempt at it may take, and spends no attempt meanwhile."""
    if task.cancel_requested:
        return [cancelled(workspace, task, "cancelled on request")]
    since = task.volume_away_since or command.now
    until = since + timedelta(seconds=RETRY[task.kind].deadline_s)
    error = command.error
    if command.now >= until:
        detail = f"The volume was away for more than {RETRY[task.kind].deadline_s:g} s: {error.detail}"
        return [_failed(task, replace(error, detail=detail))]
    waiting = TaskError(
        error.code,
        f"waiting for the volume since {_utc(since)}: {error.detail}",
        f"{error.hint}; WVS tries again by itself until {_utc(until)}",
        retryable=True,
    )
    delay_s = volume_away_delay_s((command.now - since).total_seconds(), command.jitter)
    return [_next_attempt(task, waiting, command.now, delay_s, counted=False)]


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def hand_back(command: HandBack, workspace: Workspace) -> list[Event]:
    """The task returns to the head of its lane, or is cancelled if a client requested that."""
    task = _with_touched(_held(command.task_id, command.fence, workspace), touched=command.touched)
    if task.cancel_requested:
        return [cancelled(workspace, task, "cancelled on request")]
    return [_next_attempt(task, _HANDED_BACK, command.now, delay_s=0.0, counted=False)]


def _attempt_failed(workspace: Workspace, task: Task, error: TaskError, now: datetime, delay_s: float) -> list[Event]:
    lost = _lost_source(workspace, task, error)
    if task.cancel_requested or error.code is ErrorCode.CANCELLED:
        return [*lost, cancelled(workspace, task, "cancelled on request")]
    if error.retryable and task.attempt < RETRY[task.kind].max_attempts:
        return [*lost, _next_attempt(task, error, now, delay_s, counted=True)]
    return [*lost, _failed(task, error)]


def _lost_source(workspace: Workspace, task: Task, error: TaskError) -> list[Event]:
    """A `current_set` whose source is missing reports that a ready snapshot lost its directory."""
    if error.code is not ErrorCode.TREE_MISSING or task.kind is not TaskKind.CURRENT_SET or task.snapshot_id is None:
        return []
    snapshot = workspace.snapshots[task.snapshot_id]
    if snapshot.state is not SnapshotState.READY or snapshot.tree is None:
        return []
    return [SnapshotLost(snapshot.id, snapshot.tree, error.detail)]


def _next_attempt(task: Task, error: TaskError, now: datetime, delay_s: float, *, counted: bool) -> TaskAttemptFailed:
    return TaskAttemptFailed(
        task_id=task.id,
        kind=task.kind,
        attempt=task.attempt,
        fence=task.fence,
        error=error,
        tree=task.tree,
        delay_s=delay_s,
        next_attempt_at=now + timedelta(seconds=delay_s),
        counted=counted,
        touched=task.touched,
    )


def _failed(task: Task, error: TaskError) -> Event:
    match task.kind:
        case TaskKind.SNAPSHOT_CREATE:
            return SnapshotFailed(target(task), task.id, task.fence, task.attempt, error, task.tree)
        case TaskKind.CURRENT_SET:
            return CurrentSetFailed(target(task), task.id, task.fence, task.attempt, error, task.tree)
        case TaskKind.SNAPSHOT_DROP:
            return SnapshotDropFailed(target(task), task.id, task.fence, task.attempt, error)
        case TaskKind.WORKSPACE_INIT:
            return WorkspaceInitFailed(task.id, task.fence, task.attempt, error, task.tree)
        case _:
            assert_never(task.kind)


def report_lost(command: ReportLost, workspace: Workspace) -> list[Event]:
    """The snapshot is lost, if it is ready; a report about any other state changes nothing."""
    snapshot = workspace.snapshots.get(command.snapshot_id)
    if snapshot is None:
        raise Refused(ErrorCode.SNAPSHOT_NOT_FOUND, "This workspace has no such snapshot.")
    if snapshot.state is not SnapshotState.READY or snapshot.tree is None:
        return []
    return [SnapshotLost(snapshot.id, snapshot.tree, command.detail)]


def report_found(command: ReportFound, workspace: Workspace) -> list[Event]:
    """The snapshot is ready again, if it is lost; a report about any other state changes nothing."""
    snapshot = workspace.snapshots.get(command.snapshot_id)
    if snapshot is None:
        raise Refused(ErrorCode.SNAPSHOT_NOT_FOUND, "This workspace has no such snapshot.")
    if snapshot.state is not SnapshotState.LOST or snapshot.tree is None:
        return []
    return [SnapshotFound(snapshot.id, snapshot.tree, command.detail)]


_Finish: TypeAlias = FinishInit | FinishSnapshot | FinishSetCurrent | FinishDrop


def _held_as(kind: TaskKind, command: _Finish, workspace: Workspace) -> Task:
    """The running task, which has to be of the kind that the command finishes."""
    task = _held(command.task_id, command.fence, workspace)
    if task.kind is not kind:
        raise Refused(ErrorCode.INVALID_REQUEST, f"A {task.kind} cannot end with {type(command).__name__}.")
    return task


def _held(task_id: UUID, fence: int, workspace: Workspace) -> Task:
    running = workspace.running
    if running is None or running != task_id or workspace.tasks[running].fence != fence:
        raise _stale(fence, workspace)
    return workspace.tasks[running]


def _with_touched(task: Task, *, touched: bool) -> Task:
    """A drop that has begun stays begun, whatever a later attempt reports."""
    return replace(task, touched=task.touched or touched)


def _stale(fence: int, workspace: Workspace) -> Refused:
    return Refused(
        ErrorCode.LEASE_LOST,
        f"Fence {fence} does not hold this task; the workspace is at fence {workspace.fence}.",
        "Stop this attempt and commit nothing.",
        fence=workspace.fence,
    )
