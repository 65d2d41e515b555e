"""A replay refuses every event that no decision could have produced: it never folds a damaged log."""

from collections.abc import Callable
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.unit.domain import situations
from tests.unit.domain.situations import Build, Situation
from tests.unit.domain.story import CERTIFICATE, FINAL, NOBODY, NOW, REPORT, RETRYABLE, WORKSPACE_ID, finish_of
from wvs.domain.decide import decide
from wvs.domain.events import (
    CurrentSet,
    CurrentSetFailed,
    CurrentSetRequested,
    CurrentSetSkipped,
    Event,
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
from wvs.domain.evolve import evolve, fold
from wvs.domain.states import IllegalStepError, SnapshotState, TaskKind, WorkspaceState

NEW = UUID(int=3)


def _attempt_failed(task: UUID) -> Event:
    return TaskAttemptFailed(
        task, TaskKind.SNAPSHOT_CREATE, 1, 2, RETRYABLE, "t", 0.0, NOW, counted=True, touched=False
    )


def _started(task: UUID, fence: int) -> Event:
    return TaskStarted(task, TaskKind.SNAPSHOT_CREATE, 1, fence, "executor-1", "t")


def _cancelled(task: UUID, snapshot: UUID, becomes: SnapshotState) -> Event:
    return TaskCancelled(task, TaskKind.SNAPSHOT_CREATE, snapshot, becomes, None, "x", None)


def _set(snapshot: UUID, task: UUID, epoch: int) -> Event:
    return CurrentSet(snapshot, task, 9, "t", None, epoch, REPORT, CERTIFICATE)


def _second_of_two() -> Situation:
    case = situations.create_queued()
    return Situation(case.story, *case.story.request_snapshot())


def _drop_failed_by_cancel() -> Situation:
    return situations.cancelled_while_running(situations.drop_queued())


# After each situation, this event (about its snapshot and task) is impossible.
_DAMAGE: dict[str, tuple[Build, Callable[[Situation], Event]]] = {
    "created twice": (situations.active, lambda _: WorkspaceCreated("a", {}, NEW, "default", None)),
    "initialized twice": (
        situations.active,
        lambda c: WorkspaceInitialized(c.task, 1, "t", "copy", WorkspaceState.ACTIVE),
    ),
    "init failed while active": (situations.active, lambda c: WorkspaceInitFailed(c.task, 1, 1, FINAL, None)),
    "init retried while active": (situations.active, lambda _: WorkspaceInitRetried(NEW, new_task=True)),
    "disabled twice": (lambda: situations.disabled(situations.active()), lambda _: WorkspaceDisabled(None)),
    "snapshot requested twice": (situations.ready, lambda c: SnapshotRequested(c.snapshot, NEW, None, {})),
    "task accepted twice": (situations.create_queued, lambda c: SnapshotRequested(NEW, c.task, None, {})),
    "ended task accepted again": (situations.active, lambda c: SnapshotRequested(NEW, c.task, None, {})),
    "no-op of a known task": (situations.set_queued, lambda c: CurrentSetSkipped(c.snapshot, c.task, at_request=True)),
    "created twice over": (
        lambda: situations.succeeded(situations.create_queued()),
        lambda c: SnapshotCreated(c.snapshot, c.task, 2, "t", REPORT, CERTIFICATE),
    ),
    "snapshot created without a start": (
        situations.create_queued,
        lambda c: SnapshotCreated(c.snapshot, c.task, 2, "t", REPORT, CERTIFICATE),
    ),
    "snapshot failed without a start": (
        situations.create_queued,
        lambda c: SnapshotFailed(c.snapshot, c.task, 2, 1, FINAL, None),
    ),
    "lost while creating": (situations.create_queued, lambda c: SnapshotLost(c.snapshot, "t", "ENOENT")),
    "found while creating": (situations.create_queued, lambda c: SnapshotFound(c.snapshot, "t", "again")),
    "found while dropping": (situations.drop_queued, lambda c: SnapshotFound(c.snapshot, "t", "again")),
    "found although ready": (situations.ready, lambda c: SnapshotFound(c.snapshot, "t", "again")),
    "unknown snapshot lost": (situations.active, lambda _: SnapshotLost(NOBODY, "t", "ENOENT")),
    "unknown snapshot set": (situations.active, lambda _: CurrentSetRequested(NOBODY, NEW, reset=False)),
    "set without a start": (situations.set_queued, lambda c: _set(c.snapshot, c.task, 2)),
    "set from a snapshot that was never made": (situations.create_running, lambda c: _set(c.snapshot, c.task, 2)),
    "set from a half-dropped snapshot": (
        lambda: situations.running(situations.drop_queued()),
        lambda c: _set(c.snapshot, c.task, 2),
    ),
    "set with an epoch that skips one": (
        lambda: situations.running(situations.set_queued()),
        lambda c: _set(c.snapshot, c.task, 3),
    ),
    "set failed without a start": (
        situations.set_queued,
        lambda c: CurrentSetFailed(c.snapshot, c.task, 2, 1, FINAL, None),
    ),
    "skipped without a start": (
        situations.set_queued,
        lambda c: CurrentSetSkipped(c.snapshot, c.task, at_request=False),
    ),
    "drop of a snapshot that is being made": (
        situations.create_queued,
        lambda c: SnapshotDropRequested(c.snapshot, NEW),
    ),
    "drop of a dropped snapshot": (
        lambda: situations.succeeded(situations.drop_queued()),
        lambda c: SnapshotDropRequested(c.snapshot, NEW),
    ),
    "dropped without a request": (situations.ready, lambda c: SnapshotDropped(c.snapshot, c.task, 2, None)),
    "drop failed without a request": (situations.ready, lambda c: SnapshotDropFailed(c.snapshot, c.task, 2, 1, FINAL)),
    "dropped without a start": (situations.drop_queued, lambda c: SnapshotDropped(c.snapshot, c.task, 2, None)),
    "started twice": (situations.create_running, lambda c: _started(c.task, 99)),
    "started out of order": (_second_of_two, lambda c: _started(c.task, 99)),
    "started under a fence that did not grow": (situations.create_queued, lambda c: _started(c.task, 1)),
    "unknown task started": (situations.active, lambda _: _started(NOBODY, 99)),
    "ended task started": (situations.active, lambda c: _started(c.task, 99)),
    "attempt failed without a start": (situations.create_queued, lambda c: _attempt_failed(c.task)),
    "attempt of a failed task failed": (
        lambda: situations.failed(situations.create_queued()),
        lambda c: _attempt_failed(c.task),
    ),
    "running task retried by hand": (
        lambda: situations.running(situations.set_queued()),
        lambda c: TaskRetried(c.task, TaskKind.CURRENT_SET, c.snapshot),
    ),
    "queued task asked to cancel": (situations.create_queued, lambda c: TaskCancelRequested(c.task)),
    "cancelled task cancelled": (
        _drop_failed_by_cancel,
        lambda c: TaskCancelled(c.task, TaskKind.SNAPSHOT_DROP, c.snapshot, None, None, "x", None),
    ),
    "cancel that makes a snapshot dropped": (
        situations.create_queued,
        lambda c: _cancelled(c.task, c.snapshot, SnapshotState.DROPPED),
    ),
}


@pytest.mark.parametrize(("build", "event"), _DAMAGE.values(), ids=_DAMAGE)
def test_an_event_that_does_not_fit_is_refused(build: Build, event: Callable[[Situation], Event]) -> None:
    case = build()
    with pytest.raises(IllegalStepError):
        evolve(WORKSPACE_ID, case.story.workspace, event(case))


def test_a_start_beside_a_running_task_is_refused() -> None:
    """Even at the head of the queue: two tasks of one workspace never run at once (rule 6)."""
    case = situations.behind(TaskKind.SNAPSHOT_CREATE)
    assert case.story.workspace.queued[0] == case.task
    with pytest.raises(IllegalStepError, match="no other task runs"):
        evolve(WORKSPACE_ID, case.story.workspace, _started(case.task, 99))


def test_a_log_that_does_not_begin_with_a_creation_is_refused() -> None:
    with pytest.raises(IllegalStepError, match="cannot be the first event"):
        fold(WORKSPACE_ID, [WorkspaceDisabled(None)])


def test_an_empty_log_gives_no_workspace() -> None:
    assert fold(WORKSPACE_ID, []) is None


def test_a_log_can_be_folded_from_any_point() -> None:
    story = situations.failed(situations.drop_queued()).story
    for cut in range(len(story.log) + 1):
        assert fold(WORKSPACE_ID, story.log[cut:], fold(WORKSPACE_ID, story.log[:cut])) == story.workspace


def test_an_older_state_does_not_change() -> None:
    story = situations.create_running().story
    assert [before for before, _, _ in story.path[1:]] == [after for _, _, after in story.path[:-1]]
    for cut, (_, _, after) in enumerate(story.path, start=1):
        assert fold(WORKSPACE_ID, story.log[:cut]) == after


def test_a_task_that_lost_its_snapshot_is_an_error_of_the_state_not_a_guess() -> None:
    """No event leads to this state; a foreign memento could."""
    case = situations.create_running()
    workspace = case.story.workspace
    broken = replace(
        workspace, tasks=workspace.tasks.insert(case.task, replace(case.story.task(case.task), snapshot_id=None))
    )
    with pytest.raises(IllegalStepError, match="names no snapshot"):
        decide(finish_of(TaskKind.SNAPSHOT_CREATE, case.task, workspace.fence), broken)
