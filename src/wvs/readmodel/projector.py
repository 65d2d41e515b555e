"""The projector: one event in, changed rows out. A pure function that the write path and a rebuild share."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

from wvs.domain import events
from wvs.domain.policy import RETRY
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.domain.values import Certificate, CloneReport, Metadata, TaskError
from wvs.readmodel.changes import Change, Insert, Update
from wvs.readmodel.tree_states import TreeState


def project(workspace_id: UUID, event: events.Event, metadata: Metadata) -> list[Change]:
    """The row changes of one event."""
    return _Projection(workspace_id, metadata.occurred_at).changes(event)


class _Projection:
    """The projection of one event of a workspace."""

    def __init__(self, workspace_id: UUID, at: datetime) -> None:
        self._workspace_id = workspace_id
        self._at = at

    def changes(self, event: events.Event) -> list[Change]:
        match event:
            case events.WorkspaceCreated():
                created = self._new_workspace(event.name, event.labels, event.tenant, event.volume_id)
                return [created, self._new_task(event.task_id, TaskKind.WORKSPACE_INIT)]
            case events.WorkspaceInitialized():
                active = self._workspace(state=event.workspace_state, live_tree=event.tree, epoch=1, error=None)
                return [active, self._succeeded(event.task_id), *self._tree(event.tree, TreeState.LIVE)]
            case events.WorkspaceInitFailed():
                init_failed = self._workspace(state=WorkspaceState.INIT_FAILED, error=event.error)
                return [init_failed, *self._failed(event.task_id, event.error, event.tree)]
            case events.WorkspaceInitRetried():
                return self._init_retried(event.task_id, new_task=event.new_task)
            case events.WorkspaceDisabled():
                return [self._workspace(state=WorkspaceState.DISABLED, disabled_at=self._at)]
            case events.SnapshotRequested():
                requested = self._new_snapshot(event.snapshot_id, event.message, event.labels)
                return [*requested, self._new_task(event.task_id, TaskKind.SNAPSHOT_CREATE, event.snapshot_id)]
            case events.SnapshotCreated():
                ready = self._ready_snapshot(event.snapshot_id, event.tree, event.report, event.certificate)
                return [*ready, self._succeeded(event.task_id, event.report, event.certificate)]
            case events.SnapshotFailed():
                failed = self._snapshot(event.snapshot_id, state=SnapshotState.FAILED, error=event.error)
                return [failed, *self._failed(event.task_id, event.error, event.tree)]
            case events.SnapshotLost() | events.SnapshotFound():
                return self._lost_or_found(event)
            case events.CurrentSetRequested():
                return [self._new_task(event.task_id, TaskKind.CURRENT_SET, event.snapshot_id)]
            case events.CurrentSetSkipped():
                return [self._skipped(event.task_id, event.snapshot_id, at_request=event.at_request)]
            case events.CurrentSet():
                moved = self._moved_to(event.snapshot_id, event.epoch, event.tree, event.retired_tree)
                return [*moved, self._succeeded(event.task_id, event.report, event.certificate)]
            case events.CurrentSetFailed():
                return self._failed(event.task_id, event.error, event.tree)
            case events.SnapshotDropRequested():
                dropping = self._snapshot(event.snapshot_id, state=SnapshotState.DROPPING, error=None)
                return [dropping, self._new_task(event.task_id, TaskKind.SNAPSHOT_DROP, event.snapshot_id)]
            case events.SnapshotDropped():
                dropped = self._snapshot(event.snapshot_id, state=SnapshotState.DROPPED, deleted_at=self._at)
                return [dropped, self._succeeded(event.task_id), *self._tree(event.tree, TreeState.REMOVED)]
            case events.SnapshotDropFailed():
                kept = self._snapshot(event.snapshot_id, state=SnapshotState.DROP_FAILED, error=event.error)
                return [kept, *self._failed(event.task_id, event.error, tree=None)]
            case events.TaskStarted():
                return self._started(event.task_id, event.attempt, event.fence, event.tree)
            case events.TaskAttemptFailed():
                attempts = event.attempt if event.counted else event.attempt - 1
                return self._waiting(event.task_id, attempts, event.error, event.tree, event.next_attempt_at)
            case events.TaskRetried():
                return [self._queued_again(event.task_id), *self._retried_snapshot(event.kind, event.snapshot_id)]
            case events.TaskCancelRequested():
                return [self._task(event.task_id, cancel_requested=True)]
            case events.TaskCancelled():
                states = self._after_cancel(event.snapshot_id, event.snapshot_state, event.workspace_state)
                return [self._cancelled(event.task_id), *states, *self._tree(event.tree, TreeState.ABANDONED)]
            case events.SessionEvicted():
                return []
            case _:
                assert_never(event)

    def _init_retried(self, task_id: UUID, *, new_task: bool) -> list[Change]:
        task = self._new_task(task_id, TaskKind.WORKSPACE_INIT) if new_task else self._queued_again(task_id)
        return [self._workspace(state=WorkspaceState.INITIALIZING, error=None), task]

    def _ready_snapshot(
        self, snapshot_id: UUID, tree: str, report: CloneReport, certificate: Certificate
    ) -> list[Change]:
        snapshot = self._snapshot(
            snapshot_id,
            state=SnapshotState.READY,
            tree=tree,
            engine=report.engine,
            files=report.files,
            bytes=report.bytes,
            report=report,
            certificate=certificate,
            error=None,
            ready_at=self._at,
        )
        return [snapshot, *self._tree(tree, TreeState.SNAPSHOT)]

    def _lost_or_found(self, event: events.SnapshotLost | events.SnapshotFound) -> list[Change]:
        lost = isinstance(event, events.SnapshotLost)
        snapshot = self._snapshot(event.snapshot_id, state=SnapshotState.LOST if lost else SnapshotState.READY)
        return [snapshot, *self._tree(event.tree, TreeState.LOST if lost else TreeState.SNAPSHOT)]

    def _moved_to(self, snapshot_id: UUID, epoch: int, tree: str, retired_tree: str | None) -> list[Change]:
        moved = self._workspace(current_snapshot_id=snapshot_id, live_tree=tree, epoch=epoch)
        return [moved, *self._tree(tree, TreeState.LIVE), *self._tree(retired_tree, TreeState.RETIRED)]

    def _retried_snapshot(self, kind: TaskKind, snapshot_id: UUID) -> list[Change]:
        if kind is TaskKind.CURRENT_SET:
            return []
        state = SnapshotState.CREATING if kind is TaskKind.SNAPSHOT_CREATE else SnapshotState.DROPPING
        return [self._snapshot(snapshot_id, state=state, error=None)]

    def _skipped(self, task_id: UUID, snapshot_id: UUID, *, at_request: bool) -> Change:
        """A task that was skipped at its request was never queued; its row is therefore new."""
        columns = {"state": TaskState.SUCCEEDED, "noop": True, "finished_at": self._at}
        if not at_request:
            return self._task(task_id, **columns)
        task = self._new_task(task_id, TaskKind.CURRENT_SET, snapshot_id)
        return Insert("tasks", {**task.row, **columns})

    def _after_cancel(
        self,
        snapshot_id: UUID | None,
        snapshot_state: SnapshotState | None,
        workspace_state: WorkspaceState | None,
    ) -> list[Change]:
        changes: list[Change] = []
        if snapshot_id is not None and snapshot_state is not None:
            changes.append(self._snapshot(snapshot_id, state=snapshot_state))
        if workspace_state is not None:
            changes.append(self._workspace(state=workspace_state))
        return changes

    def _new_workspace(self, name: str, labels: Mapping[str, str], tenant: str, volume_id: UUID | None) -> Change:
        row = {
            "id": self._workspace_id,
            "name": name,
            "state": WorkspaceState.INITIALIZING,
            "labels": labels,
            "current_snapshot_id": None,
            "live_tree": None,
            "epoch": 0,
            "error": None,
            "created_at": self._at,
            "disabled_at": None,
            "tenant": tenant,
            "volume_id": volume_id,
        }
        return Insert("workspaces", row)

    def _new_snapshot(self, snapshot_id: UUID, message: str | None, labels: Mapping[str, str]) -> list[Change]:
        row = {
            "id": snapshot_id,
            "workspace_id": self._workspace_id,
            "state": SnapshotState.CREATING,
            "message": message,
            "labels": labels,
            "created_at": self._at,
        }
        label_rows = [
            {"workspace_id": self._workspace_id, "label": f"{key}={value}", "snapshot_id": snapshot_id}
            for key, value in labels.items()
        ]
        return [Insert("snapshots", row), *(Insert("snapshot_labels", label_row) for label_row in label_rows)]

    def _new_task(self, task_id: UUID, kind: TaskKind, snapshot_id: UUID | None = None) -> Insert:
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

    def _started(self, task_id: UUID, attempt: int, fence: int, tree: str | None) -> list[Change]:
        """The task runs and is going to create the directory `tree`; it is None for a drop."""
        running = self._task(
            task_id,
            state=TaskState.RUNNING,
            attempt=attempt,
            error=None,
            started_at=self._at,
            next_attempt_at=None,
        )
        if tree is None:
            return [running]
        row = {
            "workspace_id": self._workspace_id,
            "name": tree,
            "state": TreeState.INTENDED,
            "task_id": task_id,
            "snapshot_id": None,
            "fence": fence,
            "intended_at": self._at,
        }
        return [running, Insert("trees", row)]

    def _waiting(
        self, task_id: UUID, attempts: int, error: TaskError, tree: str | None, next_attempt_at: datetime
    ) -> list[Change]:
        task = self._task(
            task_id, state=TaskState.QUEUED, attempt=attempts, error=error, next_attempt_at=next_attempt_at
        )
        return [task, *self._tree(tree, TreeState.ABANDONED)]

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

    def _succeeded(
        self, task_id: UUID, report: CloneReport | None = None, certificate: Certificate | None = None
    ) -> Change:
        done = None if report is None else _done(report)
        # No release before bystanders were looked for wrote notes: rows of its events stay as they were written.
        looked = certificate is not None and certificate.bystanders is not None
        notes = {"notes": report.notes} if looked and report is not None and report.notes else {}
        return self._task(task_id, state=TaskState.SUCCEEDED, finished_at=self._at, error=None, progress=done, **notes)

    def _failed(self, task_id: UUID, error: TaskError, tree: str | None) -> list[Change]:
        task = self._task(task_id, state=TaskState.FAILED, finished_at=self._at, error=error, next_attempt_at=None)
        return [task, *self._tree(tree, TreeState.ABANDONED)]

    def _cancelled(self, task_id: UUID) -> Change:
        return self._task(task_id, state=TaskState.CANCELLED, finished_at=self._at, next_attempt_at=None)

    def _workspace(self, **columns: Any) -> Change:
        return Update("workspaces", {"id": self._workspace_id, **columns})

    def _snapshot(self, snapshot_id: UUID, **columns: Any) -> Change:
        return Update("snapshots", {"id": snapshot_id, **columns})

    def _task(self, task_id: UUID, **columns: Any) -> Change:
        return Update("tasks", {"id": task_id, **columns})

    def _tree(self, name: str | None, state: TreeState) -> list[Change]:
        """The change of a directory's state, if the event names a directory."""
        if name is None:
            return []
        return [Update("trees", {"workspace_id": self._workspace_id, "name": name, "state": state})]


def _done(report: CloneReport) -> dict[str, Any]:
    return {
        "phase": "done",
        "files_done": report.files,
        "files_total": report.files,
        "bytes_done": report.bytes,
        "bytes_total": report.bytes,
    }
