"""`decide`: a command and a workspace in, events out, or `Refused` with one code. One function per command.

A command whose effect already holds returns no events. The executor's commands are decided in `outcomes.py`.
"""

import re
from typing import Final, assert_never
from uuid import UUID

from msgspec.structs import replace

from wvs.domain import commands, outcomes, refusals
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import (
    CurrentSetRequested,
    CurrentSetSkipped,
    Event,
    SessionEvicted,
    SnapshotDropRequested,
    SnapshotRequested,
    TaskCancelRequested,
    TaskRetried,
    WorkspaceCreated,
    WorkspaceDisabled,
    WorkspaceInitRetried,
)
from wvs.domain.ids import SNAPSHOT, format_id
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.domain.values import NAME_PATTERN
from wvs.domain.workspace import Snapshot, Task, Workspace

_NAME: Final = re.compile(NAME_PATTERN)


def decide(command: commands.Command, workspace: Workspace | None) -> list[Event]:
    """The events that `command` causes; raises `Refused` if the rules forbid it. Deterministic (rule 8)."""
    match command:
        case commands.CreateWorkspace():
            return _create_workspace(command, workspace)
        case _ if workspace is None:
            raise Refused(ErrorCode.WORKSPACE_NOT_FOUND, "There is no such workspace.", "wvsctl workspace list")
        case commands.RetryInit():
            return _retry_init(command, workspace)
        case commands.DisableWorkspace():
            return _disable(command, workspace)
        case commands.CreateSnapshot():
            return _create_snapshot(command, workspace)
        case commands.SetCurrent():
            return _set_current(command, workspace)
        case commands.DropSnapshot():
            return _drop_snapshot(command, workspace)
        case commands.RetryTask():
            return _retry_task(command, workspace)
        case commands.CancelTask():
            return _cancel_task(command, workspace)
        case commands.EvictSession():
            return _evict_session(command, workspace)
        case commands.StartTask():
            return outcomes.start(command, workspace)
        case commands.FinishInit():
            return outcomes.finish_init(command, workspace)
        case commands.FinishSnapshot():
            return outcomes.finish_snapshot(command, workspace)
        case commands.FinishSetCurrent():
            return outcomes.finish_set_current(command, workspace)
        case commands.FinishDrop():
            return outcomes.finish_drop(command, workspace)
        case commands.FailAttempt():
            return outcomes.fail_attempt(command, workspace)
        case commands.HandBack():
            return outcomes.hand_back(command, workspace)
        case commands.ReportLost():
            return outcomes.report_lost(command, workspace)
        case commands.ReportFound():
            return outcomes.report_found(command, workspace)
        case _:
            assert_never(command)


def _create_workspace(command: commands.CreateWorkspace, workspace: Workspace | None) -> list[Event]:
    if workspace is not None:
        raise Refused(ErrorCode.WORKSPACE_NAME_TAKEN, "A workspace with this id exists already.")
    if not _NAME.fullmatch(command.name):
        raise Refused(
            ErrorCode.INVALID_REQUEST,
            f"{command.name[:80]!r} is not a valid workspace name.",
            "Use 1 to 63 of the characters a-z, 0-9 and -; the first and the last must not be a -.",
        )
    refusals.refuse_bad_labels(command.labels)
    return [WorkspaceCreated(command.name, command.labels, command.task_id, command.tenant, command.volume_id)]


def _retry_init(command: commands.RetryInit, workspace: Workspace) -> list[Event]:
    refusals.refuse_disabled(workspace)
    if workspace.state is not WorkspaceState.INIT_FAILED:
        raise Refused(
            ErrorCode.WORKSPACE_NOT_INIT_FAILED,
            f"The workspace is {workspace.state}; only in state init_failed it can be initialised again.",
        )
    failed = workspace.init_task
    if failed is not None and workspace.task_state(failed) is TaskState.FAILED:
        return [WorkspaceInitRetried(failed, new_task=False)]
    return [WorkspaceInitRetried(command.task_id, new_task=True)]


def _disable(command: commands.DisableWorkspace, workspace: Workspace) -> list[Event]:
    ended = replace(workspace, state=WorkspaceState.DISABLED)
    # No person can retry or abandon a failed task of a disabled workspace, so it would count as failed for ever.
    failed = sorted(t.id for t in workspace.tasks.values() if t.state is TaskState.FAILED)
    abandoned = [outcomes.cancelled(ended, workspace.tasks[t], "workspace disabled") for t in failed]
    if workspace.state is WorkspaceState.DISABLED:
        return [*abandoned]  # of a workspace that was disabled before disabling abandoned them
    events: list[Event] = [WorkspaceDisabled(command.reason)]
    events += [outcomes.cancelled(ended, workspace.tasks[t], "workspace disabled") for t in workspace.queued]
    events += abandoned
    if workspace.running is not None and not workspace.tasks[workspace.running].cancel_requested:
        events.append(TaskCancelRequested(workspace.running))
    return events


def _create_snapshot(command: commands.CreateSnapshot, workspace: Workspace) -> list[Event]:
    refusals.refuse_inactive(workspace)
    refusals.refuse_bad_labels(command.labels)
    refusals.refuse_full_queue(workspace)
    return [SnapshotRequested(command.snapshot_id, command.task_id, command.message, command.labels)]


def _set_current(command: commands.SetCurrent, workspace: Workspace) -> list[Event]:
    refusals.refuse_inactive(workspace)
    snapshot = refusals.existing_snapshot(workspace, command.snapshot_id)
    if command.if_epochs is not None:
        refusals.refuse_changed_current(command.if_epochs, workspace)
    if workspace.current == snapshot.id and not command.reset and not workspace.movers:
        refusals.refuse_replaced_path(command.path_replaced_by)
        return [CurrentSetSkipped(snapshot.id, command.task_id, at_request=True)]
    refusals.refuse_not_ready(snapshot)
    refusals.refuse_full_queue(workspace)
    return [CurrentSetRequested(snapshot.id, command.task_id, command.reset)]


def _drop_snapshot(command: commands.DropSnapshot, workspace: Workspace) -> list[Event]:
    disabled = workspace.state is WorkspaceState.DISABLED
    if not (disabled and _has_lost_data(command.snapshot_id, workspace)):
        refusals.refuse_inactive(workspace)
    snapshot = refusals.existing_snapshot(workspace, command.snapshot_id)
    superseded = _failed_drop(snapshot, workspace)
    tasks = [t for t in workspace.blockers(snapshot.id) if superseded is None or t != superseded.id]
    # The pointer of a disabled workspace cannot move any more, and no live tree will be made from it.
    blockers = [{"kind": "current"}] if workspace.current == snapshot.id and not disabled else []
    blockers += [refusals.task_blocker(t) for t in tasks]
    if blockers:
        raise Refused(
            ErrorCode.SNAPSHOT_IN_USE,
            f"Snapshot {format_id(SNAPSHOT, snapshot.id)} is in use.",
            "Set another snapshot current, wait for the named tasks, or cancel them (wvsctl task cancel).",
            blockers=blockers,
        )
    refusals.refuse_full_queue(workspace)
    events: list[Event] = [] if superseded is None else [outcomes.cancelled(workspace, superseded, "superseded")]
    return [*events, SnapshotDropRequested(snapshot.id, command.task_id)]


def _has_lost_data(snapshot_id: UUID, workspace: Workspace) -> bool:
    """Whether the snapshot's directory is missing or half removed: nothing is left that disabling would keep."""
    snapshot = workspace.snapshots.get(snapshot_id)
    return snapshot is not None and snapshot.state in (SnapshotState.LOST, SnapshotState.DROP_FAILED)


def _failed_drop(snapshot: Snapshot, workspace: Workspace) -> Task | None:
    """The failed drop that a new drop replaces (design §2: `drop_failed -> dropping` by a retry or a new drop)."""
    tasks = (workspace.tasks[t] for t in snapshot.tasks)
    return next((t for t in tasks if t.kind is TaskKind.SNAPSHOT_DROP and t.state is TaskState.FAILED), None)


def _retry_task(command: commands.RetryTask, workspace: Workspace) -> list[Event]:
    refusals.refuse_disabled(workspace)
    state = workspace.task_state(command.task_id)
    if state is None:
        raise Refused(ErrorCode.TASK_NOT_FOUND, "This workspace has no such task.", "wvsctl task list")
    if state is not TaskState.FAILED:
        raise Refused(
            ErrorCode.TASK_NOT_RETRYABLE,
            f"The task is {state}; only a failed task can be retried.",
            "wvsctl task get shows its state.",
        )
    task = workspace.tasks[command.task_id]
    if task.kind is TaskKind.WORKSPACE_INIT:
        return [WorkspaceInitRetried(task.id, new_task=False)]
    snapshot = workspace.snapshots[outcomes.target(task)]
    if task.kind is TaskKind.CURRENT_SET:
        refusals.refuse_not_ready(snapshot)
    refusals.refuse_full_queue(workspace)
    return [TaskRetried(task.id, task.kind, snapshot.id)]


def _cancel_task(command: commands.CancelTask, workspace: Workspace) -> list[Event]:
    refusals.refuse_disabled(workspace)
    state = workspace.task_state(command.task_id)
    match state:
        case None:
            raise Refused(ErrorCode.TASK_NOT_FOUND, "This workspace has no such task.", "wvsctl task list")
        case TaskState.QUEUED:
            return [outcomes.cancelled(workspace, workspace.tasks[command.task_id], "cancelled on request")]
        case TaskState.FAILED:
            return [outcomes.cancelled(workspace, workspace.tasks[command.task_id], "abandoned on request")]
        case TaskState.RUNNING:
            requested = workspace.tasks[command.task_id].cancel_requested
            return [] if requested else [TaskCancelRequested(command.task_id)]
        case TaskState.SUCCEEDED | TaskState.CANCELLED:
            raise Refused(ErrorCode.TASK_NOT_CANCELLABLE, f"The task is {state} already; there is nothing to cancel.")
        case _:
            assert_never(state)


def _evict_session(command: commands.EvictSession, workspace: Workspace) -> list[Event]:
    refusals.refuse_disabled(workspace)
    return [SessionEvicted(command.session_id, command.reason)]
