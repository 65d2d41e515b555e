"""The queue steps of each event."""

from typing import get_args
from uuid import UUID

import pytest

from tests.unit.domain import situations
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
    SnapshotFound,
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
from wvs.domain.react import AskToCancel, Enqueue, QueueStep, Relink, Remove, Reschedule, react
from wvs.domain.states import TaskKind, WorkspaceState

S, T = UUID(int=1), UUID(int=2)
CREATE = TaskKind.SNAPSHOT_CREATE

_REACTIONS: list[tuple[Event, list[QueueStep]]] = [
    (WorkspaceCreated("a", {}, T, "default", None), [Enqueue(T, TaskKind.WORKSPACE_INIT)]),
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
    (WorkspaceInitialized(T, 1, "t", "copy", WorkspaceState.ACTIVE), [Remove(T), Relink(1)]),
    (WorkspaceInitFailed(T, 1, 1, FINAL, None), [Remove(T)]),
    (SnapshotCreated(S, T, 1, "t", REPORT, CERTIFICATE), [Remove(T)]),
    (SnapshotFailed(S, T, 1, 1, FINAL, None), [Remove(T)]),
    (CurrentSetSkipped(S, T, at_request=False), [Remove(T)]),
    (CurrentSet(S, T, 1, "t", None, 2, REPORT, CERTIFICATE), [Remove(T), Relink(2)]),
    (CurrentSetFailed(S, T, 1, 1, FINAL, None), [Remove(T)]),
    (SnapshotDropped(S, T, 1, None), [Remove(T)]),
    (SnapshotDropFailed(S, T, 1, 1, FINAL), [Remove(T)]),
    (TaskCancelled(T, CREATE, S, None, None, "x", None), [Remove(T)]),
    (CurrentSetSkipped(S, T, at_request=True), []),
    (TaskStarted(T, CREATE, 1, 1, "executor-1", None), []),
    (WorkspaceDisabled(None), []),
    (SnapshotLost(S, "t", "ENOENT"), []),
    (SnapshotFound(S, "t", "again"), []),
    (SessionEvicted(S, None), []),
]


@pytest.mark.parametrize(("event", "steps"), _REACTIONS, ids=lambda value: type(value).__name__)
def test_each_event_has_its_queue_steps(event: Event, steps: list[QueueStep]) -> None:
    assert react([event]) == [steps]


def test_a_takeover_does_not_reschedule_the_task_that_it_has_claimed() -> None:
    case = situations.create_running()
    assert react(case.story.start(case.task)) == [[], []]


def test_a_takeover_that_ends_the_task_removes_it() -> None:
    case = situations.on_last_attempt(situations.create_queued())
    assert react(case.story.start(case.task)) == [[Remove(case.task)]]


def test_steps_stay_with_their_events() -> None:
    case = situations.failed(situations.drop_queued())
    successor = case.story.request_drop(case.snapshot)
    assert react(case.story.log[-2:]) == [[Remove(case.task)], [Enqueue(successor, TaskKind.SNAPSHOT_DROP)]]


def test_the_table_of_reactions_names_every_event() -> None:
    assert {type(event) for event, _ in _REACTIONS} == set(get_args(Event))
