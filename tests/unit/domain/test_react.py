"""What each event means for the queue."""

from typing import get_args
from uuid import UUID

import pytest

from tests.unit.domain.story import CERTIFICATE, FINAL, NOW, REPORT, RETRYABLE
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
from wvs.domain.react import AskToCancel, Enqueue, QueueStep, Remove, Reschedule, react
from wvs.domain.states import TaskKind, WorkspaceState

S, T = UUID(int=1), UUID(int=2)
CREATE = TaskKind.SNAPSHOT_CREATE

_REACTIONS: list[tuple[Event, list[QueueStep]]] = [
    (WorkspaceCreated("a", {}, T), [Enqueue(T, TaskKind.WORKSPACE_INIT)]),
    (WorkspaceInitRetried(T, new_task=True), [Enqueue(T, TaskKind.WORKSPACE_INIT)]),
    (WorkspaceInitRetried(T, new_task=False), [Enqueue(T, TaskKind.WORKSPACE_INIT)]),
    (SnapshotRequested(S, T, None, {}), [Enqueue(T, CREATE)]),
    (CurrentSetRequested(S, T, reset=False), [Enqueue(T, TaskKind.CURRENT_SET)]),
    (SnapshotDropRequested(S, T), [Enqueue(T, TaskKind.SNAPSHOT_DROP)]),
    (TaskRetried(T, CREATE, S), [Enqueue(T, CREATE)]),
    (
        TaskAttemptFailed(T, CREATE, 1, 1, RETRYABLE, None, 2.5, NOW, counted=True, touched=True),
        [Reschedule(T, 2.5)],
    ),
    (TaskCancelRequested(T), [AskToCancel(T)]),
    (WorkspaceInitialized(T, 1, "t", "copy", WorkspaceState.ACTIVE), [Remove(T)]),
    (WorkspaceInitFailed(T, 1, 1, FINAL, None), [Remove(T)]),
    (SnapshotCreated(S, T, 1, "t", REPORT, CERTIFICATE), [Remove(T)]),
    (SnapshotFailed(S, T, 1, 1, FINAL, None), [Remove(T)]),
    (CurrentSetSkipped(S, T, at_request=False), [Remove(T)]),
    (CurrentSet(S, T, 1, "t", None, 2, REPORT, CERTIFICATE), [Remove(T)]),
    (CurrentSetFailed(S, T, 1, 1, FINAL, None), [Remove(T)]),
    (SnapshotDropped(S, T, 1, None), [Remove(T)]),
    (SnapshotDropFailed(S, T, 1, 1, FINAL), [Remove(T)]),
    (TaskCancelled(T, CREATE, S, None, None, "x", None), [Remove(T)]),
    (CurrentSetSkipped(S, T, at_request=True), []),
    (TaskStarted(T, CREATE, 1, 1, "executor-1", None), []),
    (WorkspaceDisabled(None), []),
    (SnapshotLost(S, "t", "ENOENT"), []),
    (SessionEvicted(S, None), []),
]


@pytest.mark.parametrize(("event", "steps"), _REACTIONS, ids=lambda value: type(value).__name__)
def test_an_event_has_its_meaning_for_the_queue(event: Event, steps: list[QueueStep]) -> None:
    assert react(event) == steps


def test_every_event_has_a_reaction_written_down() -> None:
    assert {type(event) for event, _ in _REACTIONS} == set(get_args(Event))
