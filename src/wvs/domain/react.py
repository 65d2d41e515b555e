"""`react`: the process manager. The events of a decision in, steps of the queue out, for the same transaction."""

from collections.abc import Sequence
from typing import TypeAlias, assert_never
from uuid import UUID

from msgspec import Struct

from wvs.domain import events
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
    """Ask the executor that holds the task, at its next renewal, to stop at a safe point."""

    task_id: UUID


class Remove(Struct, frozen=True, tag="remove"):
    """The task left the queue; the lane continues with the next one."""

    task_id: UUID


class Relink(Struct, frozen=True, tag="relink"):
    """The stable link has to point to the live tree of `epoch`; pending until an executor confirms it."""

    epoch: int


QueueStep: TypeAlias = Enqueue | Reschedule | AskToCancel | Remove | Relink


def react(decision: Sequence[events.Event]) -> list[list[QueueStep]]:
    """The queue steps of each event of one decision.

    A failed attempt is rescheduled only if it is the decision's last event. A takeover ends the attempt of the dead
    holder and starts the next one in the same decision. Its claim already holds the lane: if the task were rescheduled
    in between, a third executor could claim it.
    """
    return [_react(event, is_last=number == len(decision)) for number, event in enumerate(decision, 1)]


def _react(event: events.Event, *, is_last: bool) -> list[QueueStep]:
    match event:
        case events.WorkspaceCreated() | events.WorkspaceInitRetried():
            return [Enqueue(event.task_id, TaskKind.WORKSPACE_INIT)]
        case events.SnapshotRequested():
            return [Enqueue(event.task_id, TaskKind.SNAPSHOT_CREATE)]
        case events.CurrentSetRequested():
            return [Enqueue(event.task_id, TaskKind.CURRENT_SET)]
        case events.SnapshotDropRequested():
            return [Enqueue(event.task_id, TaskKind.SNAPSHOT_DROP)]
        case events.TaskRetried():
            return [Enqueue(event.task_id, event.kind)]
        case events.TaskAttemptFailed():
            return [Reschedule(event.task_id, event.delay_s)] if is_last else []
        case events.TaskCancelRequested():
            return [AskToCancel(event.task_id)]
        case events.CurrentSetSkipped():
            return [] if event.at_request else [Remove(event.task_id)]
        case events.WorkspaceInitialized():
            return [Remove(event.task_id), Relink(epoch=1)]
        case events.CurrentSet():
            return [Remove(event.task_id), Relink(event.epoch)]
        case (
            events.WorkspaceInitFailed()
            | events.SnapshotCreated()
            | events.SnapshotFailed()
            | events.CurrentSetFailed()
            | events.SnapshotDropped()
            | events.SnapshotDropFailed()
            | events.TaskCancelled()
        ):
            return [Remove(event.task_id)]
        case (
            events.TaskStarted()
            | events.WorkspaceDisabled()
            | events.SnapshotLost()
            | events.SnapshotFound()
            | events.SessionEvicted()
        ):
            return []
        case _:
            assert_never(event)
