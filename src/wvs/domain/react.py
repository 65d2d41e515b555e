"""`react`: the process manager. A decision's events in, what the queue has to do out; it runs in their transaction."""

from collections.abc import Sequence
from typing import Final, TypeAlias, assert_never
from uuid import UUID

from msgspec import Struct

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
from wvs.domain.states import TaskKind


class Enqueue(Struct, frozen=True, tag="enqueue"):
    """Put the task at the end of its workspace's lane."""

    task_id: UUID
    kind: TaskKind


class Reschedule(Struct, frozen=True, tag="reschedule"):
    """Keep the task at the head of its lane and run it again after `delay_s` seconds."""

    task_id: UUID
    delay_s: float


class AskToCancel(Struct, frozen=True, tag="ask_to_cancel"):
    """Tell the holder at its next renewal to end at a safe point."""

    task_id: UUID


class Remove(Struct, frozen=True, tag="remove"):
    """The task left the queue; the lane goes on with the next one."""

    task_id: UUID


class Relink(Struct, frozen=True, tag="relink"):
    """The stable link has to follow the live tree of `epoch`; pending until an executor says that it does."""

    epoch: int


QueueStep: TypeAlias = Enqueue | Reschedule | AskToCancel | Remove | Relink


_REQUESTED: Final = {
    SnapshotRequested: TaskKind.SNAPSHOT_CREATE,
    CurrentSetRequested: TaskKind.CURRENT_SET,
    SnapshotDropRequested: TaskKind.SNAPSHOT_DROP,
}


def react(events: Sequence[Event]) -> list[list[QueueStep]]:
    """What each event of one decision means for the queue.

    A takeover ends the dead holder's attempt and begins the next in one decision. Its claim holds the lane already: to
    put the task up again in between would let a third executor claim what the second is about to do.
    """
    begun = {event.task_id for event in events if isinstance(event, TaskStarted)}
    return [[s for s in _react(e) if not isinstance(s, Reschedule) or s.task_id not in begun] for e in events]


def _react(event: Event) -> list[QueueStep]:
    match event:
        case WorkspaceCreated() | WorkspaceInitRetried():
            return [Enqueue(event.task_id, TaskKind.WORKSPACE_INIT)]
        case SnapshotRequested() | CurrentSetRequested() | SnapshotDropRequested():
            return [Enqueue(event.task_id, _REQUESTED[type(event)])]
        case TaskRetried():
            return [Enqueue(event.task_id, event.kind)]
        case TaskAttemptFailed():
            return [Reschedule(event.task_id, event.delay_s)]
        case TaskCancelRequested():
            return [AskToCancel(event.task_id)]
        case CurrentSetSkipped(at_request=True):
            return []
        case WorkspaceInitialized():
            return [Remove(event.task_id), Relink(epoch=1)]
        case CurrentSet():
            return [Remove(event.task_id), Relink(event.epoch)]
        case (
            WorkspaceInitFailed()
            | SnapshotCreated()
            | SnapshotFailed()
            | CurrentSetSkipped()
            | CurrentSetFailed()
            | SnapshotDropped()
            | SnapshotDropFailed()
            | TaskCancelled()
        ):
            return [Remove(event.task_id)]
        case TaskStarted() | WorkspaceDisabled() | SnapshotLost() | SessionEvicted():
            return []
        case _:
            assert_never(event)
