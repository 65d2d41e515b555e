"""How events change the tasks of a workspace and its lane.

Each function refuses a task that is not in the state that the event starts from. `TASK_STEPS` alone would let too much
pass: `failed -> queued` and `running -> queued` are both in it, but only a person causes the first and only an executor
the second.
"""

from datetime import datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from wvs.domain.errors import ErrorCode
from wvs.domain.events import TaskAttemptFailed, TaskStarted
from wvs.domain.states import TASK_STEPS, IllegalStepError, TaskKind, TaskState, step
from wvs.domain.workspace import Snapshot, Task, Workspace

_FINAL = (TaskState.SUCCEEDED, TaskState.CANCELLED)


def accepted(workspace: Workspace, task: Task) -> Workspace:
    """A new task is queued at the end of the lane and holds a reference on the snapshot that it names."""
    refuse_known_task(workspace, task.id)
    return _enqueued(workspace, task)


def retried(workspace: Workspace, task_id: UUID) -> Workspace:
    """A failed task is queued again, behind the tasks accepted since; its attempts start from zero."""
    before = _task_in(workspace, task_id, TaskState.FAILED)
    state = step(TASK_STEPS, before.state, TaskState.QUEUED)
    return _enqueued(workspace, replace(before, state=state, attempt=0, tree=None, volume_away_since=None))


def started(workspace: Workspace, event: TaskStarted) -> Workspace:
    """The head of the lane runs, under a greater fence than any task before."""
    before = _task_in(workspace, event.task_id, TaskState.QUEUED)
    if workspace.running is not None or workspace.queued[0] != before.id or event.fence <= workspace.fence:
        raise IllegalStepError(
            "A task starts only at the head of its lane, while no other task runs, and under a greater fence."
        )
    state = step(TASK_STEPS, before.state, TaskState.RUNNING)
    task = replace(before, state=state, attempt=event.attempt, fence=event.fence, tree=event.tree)
    return _with_task(replace(workspace, running=task.id, queued=workspace.queued[1:], fence=event.fence), task)


def attempt_failed(workspace: Workspace, event: TaskAttemptFailed) -> Workspace:
    """The task is queued for its next attempt at the head of the lane, which keeps the order of tasks."""
    before = _task_in(workspace, event.task_id, TaskState.RUNNING)
    task = replace(
        before,
        state=step(TASK_STEPS, before.state, TaskState.QUEUED),
        attempt=event.attempt if event.counted else event.attempt - 1,
        tree=None,
        touched=event.touched,
        volume_away_since=_volume_away_since(before, event),
    )
    return _with_task(replace(workspace, running=None, queued=(task.id, *workspace.queued)), task)


def _volume_away_since(before: Task, event: TaskAttemptFailed) -> datetime | None:
    """When the outage of the volume began that the task waits for; a counted attempt has found the volume there."""
    if event.counted:
        return None
    if event.error.code is not ErrorCode.VOLUME_UNAVAILABLE:  # handed back
        return before.volume_away_since
    return before.volume_away_since or event.next_attempt_at - timedelta(seconds=event.delay_s)


def cancel_requested(workspace: Workspace, task_id: UUID) -> Workspace:
    """The running task has to stop at its next safe point."""
    return _with_task(workspace, replace(_task_in(workspace, task_id, TaskState.RUNNING), cancel_requested=True))


def ended(workspace: Workspace, task_id: UUID, state: TaskState) -> Workspace:
    """The task leaves the lane. A failed task is kept in full, because a person may retry it."""
    before = known_task(workspace, task_id)
    task = replace(before, state=step(TASK_STEPS, before.state, state), touched=True)
    left = replace(
        workspace,
        running=None if workspace.running == task_id else workspace.running,
        queued=_without(workspace.queued, task_id),
        movers=_without(workspace.movers, task_id),
    )
    if state not in _FINAL:
        return _with_task(left, task)
    left = replace(left, tasks=left.tasks.remove(task_id), ended=left.ended.insert(task_id, state))
    return left if task.snapshot_id is None else _unreferenced(left, task.snapshot_id, task_id)


def known_task(workspace: Workspace, task_id: UUID) -> Task:
    """The task, if it can still have an effect; raises `IllegalStepError` for an ended or unknown one."""
    task = workspace.tasks.get(task_id)
    if task is None:
        raise IllegalStepError(f"Task {task_id} is {workspace.task_state(task_id) or 'unknown'}: no event can follow.")
    return task


def refuse_known_task(workspace: Workspace, task_id: UUID) -> None:
    """Raises `IllegalStepError` if the workspace has or had a task by this id: a task is accepted once."""
    if workspace.task_state(task_id) is not None:
        raise IllegalStepError(f"Task {task_id} is accepted a second time.")


def known_snapshot(workspace: Workspace, snapshot_id: UUID) -> Snapshot:
    """The snapshot; raises `IllegalStepError` if no event requested it."""
    snapshot = workspace.snapshots.get(snapshot_id)
    if snapshot is None:
        raise IllegalStepError(f"Snapshot {snapshot_id} is unknown.")
    return snapshot


def _task_in(workspace: Workspace, task_id: UUID, state: TaskState) -> Task:
    task = known_task(workspace, task_id)
    if task.state is not state:
        raise IllegalStepError(f"Task {task_id} is {task.state}, not {state}.")
    return task


def _enqueued(workspace: Workspace, task: Task) -> Workspace:
    movers = (*workspace.movers, task.id) if task.kind is TaskKind.CURRENT_SET else workspace.movers
    grown = replace(_with_task(workspace, task), queued=(*workspace.queued, task.id), movers=movers)
    snapshot = None if task.snapshot_id is None else known_snapshot(grown, task.snapshot_id)
    if snapshot is None or task.id in snapshot.tasks:
        return grown
    referenced = replace(snapshot, tasks=(*snapshot.tasks, task.id))
    return replace(grown, snapshots=grown.snapshots.insert(snapshot.id, referenced))


def _with_task(workspace: Workspace, task: Task) -> Workspace:
    return replace(workspace, tasks=workspace.tasks.insert(task.id, task))


def _unreferenced(workspace: Workspace, snapshot_id: UUID, task_id: UUID) -> Workspace:
    snapshot = known_snapshot(workspace, snapshot_id)
    freed = replace(snapshot, tasks=_without(snapshot.tasks, task_id))
    return replace(workspace, snapshots=workspace.snapshots.insert(snapshot_id, freed))


def _without(ids: tuple[UUID, ...], task_id: UUID) -> tuple[UUID, ...]:
    return tuple(i for i in ids if i != task_id) if task_id in ids else ids
