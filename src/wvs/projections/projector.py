"""The projector: one event in, changed rows out. A pure function, used by the write path and by a rebuild alike."""

from typing import Any, assert_never
from uuid import UUID

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
from wvs.domain.policy import RETRY
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.domain.values import CloneReport, Metadata, TaskError
from wvs.projections.changes import Change, Insert, Update
from wvs.projections.tree_states import TreeState


def project(workspace_id: UUID, event: Event, metadata: Metadata) -> list[Change]:
    """The row changes of one event."""
    return _Projection(workspace_id, metadata).of(event)


class _Projection:
    """One event's projection; holds what every change needs: whose event it is, and when it occurred."""

    def __init__(self, workspace_id: UUID, metadata: Metadata) -> None:
        self._workspace_id = workspace_id
        self._at = metadata.occurred_at

    def of(self, event: Event) -> list[Change]:
        match event:
            case WorkspaceCreated() | WorkspaceInitialized() | WorkspaceInitFailed() | WorkspaceInitRetried():
                return self._init(event)
            case WorkspaceDisabled():
                return [self._workspace(state=WorkspaceState.DISABLED, disabled_at=self._at)]
            case SnapshotRequested() | SnapshotCreated() | SnapshotFailed() | SnapshotLost():
                return self._snapshot_event(event)
            case SnapshotDropRequested() | SnapshotDropped() | SnapshotDropFailed():
                return self._drop(event)
            case CurrentSetRequested() | CurrentSetSkipped() | CurrentSet() | CurrentSetFailed():
                return self._current(event)
            case TaskStarted() | TaskAttemptFailed() | TaskRetried() | TaskCancelRequested() | TaskCancelled():
                return self._task_event(event)
            case SessionEvicted():
                return []
            case _:
                assert_never(event)

    def _init(
        self, event: WorkspaceCreated | WorkspaceInitialized | WorkspaceInitFailed | WorkspaceInitRetried
    ) -> list[Change]:
        match event:
            case WorkspaceCreated():
                return [self._new_workspace(event), self._new_task(event.task_id, TaskKind.WORKSPACE_INIT, None)]
            case WorkspaceInitialized():
                return [
                    self._workspace(state=event.workspace_state, live_tree=event.tree, epoch=1, error=None),
                    self._succeeded(event.task_id),
                    self._tree(event.tree, TreeState.LIVE),
                ]
            case WorkspaceInitFailed():
                return [
                    self._workspace(state=WorkspaceState.INIT_FAILED, error=event.error),
                    self._failed(event.task_id, event.error),
                    *self._abandoned(event.tree),
                ]
            case WorkspaceInitRetried():
                back = self._workspace(state=WorkspaceState.INITIALIZING, error=None)
                if event.new_task:
                    return [back, self._new_task(event.task_id, TaskKind.WORKSPACE_INIT, None)]
                return [back, self._queued_again(event.task_id)]
            case _:
                assert_never(event)

    def _snapshot_event(
        self, event: SnapshotRequested | SnapshotCreated | SnapshotFailed | SnapshotLost
    ) -> list[Change]:
        match event:
            case SnapshotRequested():
                return [
                    self._new_snapshot(event),
                    *self._new_labels(event),
                    self._new_task(event.task_id, TaskKind.SNAPSHOT_CREATE, event.snapshot_id),
                ]
            case SnapshotCreated():
                return [
                    self._snapshot(
                        event.snapshot_id,
                        state=SnapshotState.READY,
                        tree=event.tree,
                        engine=event.report.engine,
                        files=event.report.files,
                        bytes=event.report.bytes,
                        report=event.report,
                        certificate=event.certificate,
                        error=None,
                        ready_at=self._at,
                    ),
                    self._succeeded(event.task_id, event.report),
                    self._tree(event.tree, TreeState.SNAPSHOT),
                ]
            case SnapshotFailed():
                return [
                    self._snapshot(event.snapshot_id, state=SnapshotState.FAILED, error=event.error),
                    self._failed(event.task_id, event.error),
                    *self._abandoned(event.tree),
                ]
            case SnapshotLost():
                return [
                    self._snapshot(event.snapshot_id, state=SnapshotState.LOST),
                    self._tree(event.tree, TreeState.LOST),
                ]
            case _:
                assert_never(event)

    def _drop(self, event: SnapshotDropRequested | SnapshotDropped | SnapshotDropFailed) -> list[Change]:
        match event:
            case SnapshotDropRequested():
                return [
                    self._snapshot(event.snapshot_id, state=SnapshotState.DROPPING, error=None),
                    self._new_task(event.task_id, TaskKind.SNAPSHOT_DROP, event.snapshot_id),
                ]
            case SnapshotDropped():
                gone = [] if event.tree is None else [self._tree(event.tree, TreeState.REMOVED)]
                return [
                    self._snapshot(event.snapshot_id, state=SnapshotState.DROPPED, deleted_at=self._at),
                    self._succeeded(event.task_id),
                    *gone,
                ]
            case SnapshotDropFailed():
                return [
                    self._snapshot(event.snapshot_id, state=SnapshotState.DROP_FAILED, error=event.error),
                    self._failed(event.task_id, event.error),
                ]
            case _:
                assert_never(event)

    def _current(self, event: CurrentSetRequested | CurrentSetSkipped | CurrentSet | CurrentSetFailed) -> list[Change]:
        match event:
            case CurrentSetRequested():
                return [self._new_task(event.task_id, TaskKind.CURRENT_SET, event.snapshot_id)]
            case CurrentSetSkipped(at_request=True):
                task = self._new_task(event.task_id, TaskKind.CURRENT_SET, event.snapshot_id)
                ended = {"state": TaskState.SUCCEEDED, "noop": True, "finished_at": self._at}
                return [Insert("tasks", {**task.row, **ended})]
            case CurrentSetSkipped():
                return [self._task(event.task_id, state=TaskState.SUCCEEDED, noop=True, finished_at=self._at)]
            case CurrentSet():
                retired = [] if event.retired_tree is None else [self._tree(event.retired_tree, TreeState.RETIRED)]
                return [
                    self._workspace(current_snapshot_id=event.snapshot_id, live_tree=event.tree, epoch=event.epoch),
                    self._succeeded(event.task_id, event.report),
                    self._tree(event.tree, TreeState.LIVE),
                    *retired,
                ]
            case CurrentSetFailed():
                return [self._failed(event.task_id, event.error), *self._abandoned(event.tree)]
            case _:
                assert_never(event)

    def _task_event(
        self, event: TaskStarted | TaskAttemptFailed | TaskRetried | TaskCancelRequested | TaskCancelled
    ) -> list[Change]:
        match event:
            case TaskStarted():
                return self._started(event)
            case TaskAttemptFailed():
                waiting = self._task(
                    event.task_id,
                    state=TaskState.QUEUED,
                    attempt=event.attempt if event.counted else event.attempt - 1,
                    error=event.error,
                    next_attempt_at=event.next_attempt_at,
                )
                return [waiting, *self._abandoned(event.tree)]
            case TaskRetried():
                return [self._queued_again(event.task_id), *self._retried_snapshot(event)]
            case TaskCancelRequested():
                return [self._task(event.task_id, cancel_requested=True)]
            case TaskCancelled():
                return self._cancelled(event)
            case _:
                assert_never(event)

    def _started(self, event: TaskStarted) -> list[Change]:
        running = self._task(
            event.task_id,
            state=TaskState.RUNNING,
            attempt=event.attempt,
            error=None,
            started_at=self._at,
            next_attempt_at=None,
        )
        if event.tree is None:
            return [running]
        tree = {
            "workspace_id": self._workspace_id,
            "name": event.tree,
            "state": TreeState.INTENDED,
            "task_id": event.task_id,
            "snapshot_id": None,
            "fence": event.fence,
            "intended_at": self._at,
        }
        return [running, Insert("trees", tree)]

    def _retried_snapshot(self, event: TaskRetried) -> list[Change]:
        if event.kind is TaskKind.CURRENT_SET:
            return []
        creating = event.kind is TaskKind.SNAPSHOT_CREATE
        state = SnapshotState.CREATING if creating else SnapshotState.DROPPING
        return [self._snapshot(event.snapshot_id, state=state, error=None)]

    def _cancelled(self, event: TaskCancelled) -> list[Change]:
        changes: list[Change] = [
            self._task(event.task_id, state=TaskState.CANCELLED, finished_at=self._at, next_attempt_at=None)
        ]
        if event.snapshot_id is not None and event.snapshot_state is not None:
            changes.append(self._snapshot(event.snapshot_id, state=event.snapshot_state))
        if event.workspace_state is not None:
            changes.append(self._workspace(state=event.workspace_state))
        return [*changes, *self._abandoned(event.tree)]

    def _new_workspace(self, event: WorkspaceCreated) -> Change:
        row = {
            "id": self._workspace_id,
            "name": event.name,
            "state": WorkspaceState.INITIALIZING,
            "labels": event.labels,
            "current_snapshot_id": None,
            "live_tree": None,
            "epoch": 0,
            "error": None,
            "created_at": self._at,
            "disabled_at": None,
            "tenant": event.tenant,
            "volume_id": event.volume_id,
        }
        return Insert("workspaces", row)

    def _new_snapshot(self, event: SnapshotRequested) -> Change:
        row = {
            "id": event.snapshot_id,
            "workspace_id": self._workspace_id,
            "state": SnapshotState.CREATING,
            "message": event.message,
            "labels": event.labels,
            "created_at": self._at,
        }
        return Insert("snapshots", row)

    def _new_labels(self, event: SnapshotRequested) -> list[Change]:
        rows = [
            {"workspace_id": self._workspace_id, "label": f"{key}={value}", "snapshot_id": event.snapshot_id}
            for key, value in event.labels.items()
        ]
        return [Insert("snapshot_labels", row) for row in rows]

    def _new_task(self, task_id: UUID, kind: TaskKind, snapshot_id: UUID | None) -> Insert:
        row = {
            "id": task_id,
            "workspace_id": self._workspace_id,
            "snapshot_id": snapshot_id,
            "kind": kind,
            "state": TaskState.QUEUED,
            "noop": False,
            "cancel_requested": False,
            "attempt": 0,
            "max_attempts": RETRY[kind].max_attempts,
            "created_at": self._at,
        }
        return Insert("tasks", row)

    def _queued_again(self, task_id: UUID) -> Change:
        return self._task(
            task_id,
            state=TaskState.QUEUED,
            attempt=0,
            cancel_requested=False,
            error=None,
            finished_at=None,
            next_attempt_at=None,
        )

    def _succeeded(self, task_id: UUID, report: CloneReport | None = None) -> Change:
        done = None if report is None else _done(report)
        return self._task(task_id, state=TaskState.SUCCEEDED, finished_at=self._at, error=None, progress=done)

    def _failed(self, task_id: UUID, error: TaskError) -> Change:
        return self._task(task_id, state=TaskState.FAILED, finished_at=self._at, error=error, next_attempt_at=None)

    def _abandoned(self, tree: str | None) -> list[Change]:
        return [] if tree is None else [self._tree(tree, TreeState.ABANDONED)]

    def _workspace(self, **columns: Any) -> Change:
        return Update("workspaces", {"id": self._workspace_id, **columns})

    def _snapshot(self, snapshot_id: UUID, **columns: Any) -> Change:
        return Update("snapshots", {"id": snapshot_id, **columns})

    def _task(self, task_id: UUID, **columns: Any) -> Change:
        return Update("tasks", {"id": task_id, **columns})

    def _tree(self, name: str, state: TreeState) -> Change:
        return Update("trees", {"workspace_id": self._workspace_id, "name": name, "state": state})


def _done(report: CloneReport) -> dict[str, Any]:
    return {
        "phase": "done",
        "files_done": report.files,
        "files_total": report.files,
        "bytes_done": report.bytes,
        "bytes_total": report.bytes,
    }
