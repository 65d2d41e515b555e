"""A workspace driven by commands alone: tests reach states as clients and executors reach them."""

from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from wvs.domain.commands import (
    CancelTask,
    Command,
    CreateSnapshot,
    CreateWorkspace,
    DropSnapshot,
    FailAttempt,
    FinishDrop,
    FinishInit,
    FinishSetCurrent,
    FinishSnapshot,
    SetCurrent,
    StartTask,
)
from wvs.domain.decide import decide
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import Event
from wvs.domain.evolve import evolve
from wvs.domain.states import TaskKind
from wvs.domain.values import Certificate, CloneReport, TaskError
from wvs.domain.workspace import Snapshot, Task, Workspace

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
WORKSPACE_ID = UUID(int=1)
NOBODY = UUID(int=2)
"""An id that no story uses."""

RETRYABLE = TaskError(ErrorCode.CLONE_FAILED, "EIO", retryable=True)
FINAL = TaskError(ErrorCode.VOLUME_FULL, "ENOSPC")
ASKED_TO_END = TaskError(ErrorCode.CANCELLED, "Ended at a safe point.")
NO_SOURCE = TaskError(ErrorCode.TREE_MISSING, "ENOENT")
HOLDER_GONE = TaskError(ErrorCode.LEASE_LOST, "The executor is gone.", retryable=True)

REPORT = CloneReport(engine="copy", files=3, bytes=42, sockets=0, freeze_s=0.01, clone_s=0.02, total_s=0.05)
CERTIFICATE = Certificate(
    freeze=1, vacuous=True, members=(), stamp_before="a", stamp_after="a", engine="copy", frozen_at=NOW, resumed_at=NOW
)

E = TypeVar("E")


class Story:
    """One workspace, its events so far, and the next free id."""

    def __init__(self) -> None:
        self._workspace: Workspace | None = None
        self._ids = 100
        self.log: list[Event] = []
        self.path: list[tuple[Workspace | None, Event, Workspace]] = []
        """Each event between the workspace before it and the one after it."""

    @property
    def workspace(self) -> Workspace:
        assert self._workspace is not None
        return self._workspace

    @property
    def workspace_or_none(self) -> Workspace | None:
        return self._workspace

    def new_id(self) -> UUID:
        self._ids += 1
        return UUID(int=self._ids)

    def do(self, command: Command) -> list[Event]:
        """Decide and apply; raises `Refused` as `decide` does."""
        events = decide(command, self._workspace)
        for event in events:
            self.record(event)
        return events

    def record(self, event: Event) -> None:
        """Applies an event that the domain of an older release decided."""
        after = evolve(WORKSPACE_ID, self._workspace, event)
        self.path.append((self._workspace, event, after))
        self._workspace = after
        self.log.append(event)

    def refusal(self, command: Command) -> Refused:
        """The refusal of `decide`; an accepted command is an error of the test."""
        try:
            events = decide(command, self._workspace)
        except Refused as refused:
            return refused
        raise AssertionError(f"{command} was accepted: {events}")

    def task(self, task_id: UUID) -> Task:
        return self.workspace.tasks[task_id]

    def snapshot(self, snapshot_id: UUID) -> Snapshot:
        return self.workspace.snapshots[snapshot_id]

    def create(self) -> UUID:
        """A workspace that is initializing; its init task."""
        task_id = self.new_id()
        self.do(CreateWorkspace("agent-7", {}, task_id))
        return task_id

    def activate(self) -> UUID:
        """An active workspace; its init task."""
        task_id = self.create()
        self.start(task_id)
        self.finish(task_id)
        return task_id

    def request_snapshot(self) -> tuple[UUID, UUID]:
        """A queued `snapshot_create`: the snapshot and the task."""
        snapshot_id, task_id = self.new_id(), self.new_id()
        self.do(CreateSnapshot(snapshot_id, task_id, None, {}))
        return snapshot_id, task_id

    def request_current(self, snapshot_id: UUID, *, reset: bool = False) -> UUID:
        task_id = self.new_id()
        self.do(SetCurrent(snapshot_id, task_id, reset))
        return task_id

    def request_drop(self, snapshot_id: UUID) -> UUID:
        task_id = self.new_id()
        self.do(DropSnapshot(snapshot_id, task_id))
        return task_id

    def ready(self) -> UUID:
        """A snapshot that is ready; nothing else may be queued."""
        snapshot_id, task_id = self.request_snapshot()
        self.start(task_id)
        self.finish(task_id)
        return snapshot_id

    def current(self) -> UUID:
        """A ready snapshot that is current; nothing else may be queued."""
        snapshot_id = self.ready()
        task_id = self.request_current(snapshot_id)
        self.start(task_id)
        self.finish(task_id)
        return snapshot_id

    def start(self, task_id: UUID, *, path_replaced_by: str | None = None) -> list[Event]:
        """Starts the task under the next fence; the tree's name consists of the task and the fence."""
        fence = self.workspace.fence + 1
        tree = tree_of(task_id, fence)
        return self.do(StartTask(task_id, fence, "executor-1", tree, NOW, HOLDER_GONE, path_replaced_by))

    def finish(self, task_id: UUID) -> list[Event]:
        """Reports the success of the running task, as the executor does."""
        return self.do(finish_of(self.task(task_id).kind, task_id, self.workspace.fence))

    def fail(self, task_id: UUID, error: TaskError = FINAL, *, touched: bool = True) -> list[Event]:
        return self.do(FailAttempt(task_id, self.workspace.fence, error, NOW, jitter=0.0, touched=touched))

    def run_to_failure(self, task_id: UUID) -> None:
        self.start(task_id)
        self.fail(task_id)

    def cancel(self, task_id: UUID) -> list[Event]:
        return self.do(CancelTask(task_id))


def tree_of(task_id: UUID, fence: int) -> str:
    return f"{task_id.int}.{fence}"


def finish_of(kind: TaskKind, task_id: UUID, fence: int) -> FinishInit | FinishSnapshot | FinishSetCurrent | FinishDrop:
    """The command that finishes a task of this kind with success."""
    tree = tree_of(task_id, fence)
    match kind:
        case TaskKind.WORKSPACE_INIT:
            return FinishInit(task_id, fence, tree, "copy")
        case TaskKind.SNAPSHOT_CREATE:
            return FinishSnapshot(task_id, fence, tree, REPORT, CERTIFICATE)
        case TaskKind.CURRENT_SET:
            return FinishSetCurrent(task_id, fence, tree, REPORT, CERTIFICATE)
        case TaskKind.SNAPSHOT_DROP:
            return FinishDrop(task_id, fence)


def only(events: list[Event], kind: type[E]) -> E:
    """The single event of a decision, which must be of this kind."""
    assert [type(event) for event in events] == [kind], events
    event = events[0]
    assert isinstance(event, kind)
    return event
