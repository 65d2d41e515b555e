"""Disabling is synchronous and final: it cancels queued tasks, asks the running one to stop, and records its end."""

import pytest

from tests.unit.domain import situations
from tests.unit.domain.situations import Situation
from tests.unit.domain.story import NOW, RETRYABLE, Story, only
from wvs.domain.commands import DisableWorkspace, HandBack
from wvs.domain.events import (
    CurrentSet,
    SnapshotCreated,
    SnapshotDropped,
    TaskCancelled,
    TaskCancelRequested,
    WorkspaceDisabled,
    WorkspaceInitialized,
)
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState


def _busy() -> tuple[Situation, list[Situation]]:
    """A running `snapshot_create` and, behind it, one task of each other kind that can wait."""
    case = situations.ready()
    story = case.story
    to_drop = story.ready()
    running = Situation(story, *story.request_snapshot())
    story.start(running.task)
    created = Situation(story, *story.request_snapshot())
    mover = Situation(story, case.snapshot, story.request_current(case.snapshot))
    drop = Situation(story, to_drop, story.request_drop(to_drop))
    return running, [created, mover, drop]


def test_disabling_cancels_queued_tasks_in_order_and_asks_the_running_one_to_stop() -> None:
    running, (created, mover, drop) = _busy()
    reason = "workspace disabled"
    assert running.story.do(DisableWorkspace("done")) == [
        WorkspaceDisabled("done"),
        TaskCancelled(
            created.task, TaskKind.SNAPSHOT_CREATE, created.snapshot, SnapshotState.FAILED, None, reason, None
        ),
        TaskCancelled(mover.task, TaskKind.CURRENT_SET, mover.snapshot, None, None, reason, None),
        TaskCancelled(drop.task, TaskKind.SNAPSHOT_DROP, drop.snapshot, SnapshotState.READY, None, reason, None),
        TaskCancelRequested(running.task),
    ]
    workspace = running.story.workspace
    assert (workspace.state, workspace.queued, workspace.movers) == (WorkspaceState.DISABLED, (), ())
    assert workspace.running == running.task


@pytest.mark.parametrize("queued", [situations.create_queued, situations.set_queued, situations.drop_queued])
def test_disabling_abandons_a_failed_task_and_leaves_its_snapshot_as_it_is(queued) -> None:
    """No person can retry or abandon it afterwards, so that it would count as failed for ever."""
    case = situations.failed(queued())
    before = case.story.snapshot(case.snapshot).state
    disabled, abandoned = case.story.do(DisableWorkspace())
    assert isinstance(disabled, WorkspaceDisabled)
    assert isinstance(abandoned, TaskCancelled)
    assert (abandoned.task_id, abandoned.reason, abandoned.snapshot_state) == (case.task, "workspace disabled", None)
    assert case.story.workspace.task_state(case.task) is TaskState.CANCELLED
    assert case.story.snapshot(case.snapshot).state is before


def test_disabling_abandons_a_failed_init() -> None:
    story = Story()
    task_id = story.create()
    story.start(task_id)
    story.fail(task_id)
    _, abandoned = story.do(DisableWorkspace())
    assert isinstance(abandoned, TaskCancelled)
    assert abandoned.workspace_state is None
    assert story.workspace.state is WorkspaceState.DISABLED


def test_disabling_again_abandons_what_an_older_release_left_failed() -> None:
    case = situations.disabled_before(situations.failed(situations.create_queued()))
    assert only(case.story.do(DisableWorkspace()), TaskCancelled).task_id == case.task
    assert case.story.do(DisableWorkspace()) == []


def test_a_task_with_a_cancel_request_gets_no_second_one() -> None:
    case = situations.cancelling(situations.create_queued())
    only(case.story.do(DisableWorkspace()), WorkspaceDisabled)


def test_disabling_again_changes_nothing() -> None:
    case = situations.disabled(situations.create_running())
    assert case.story.do(DisableWorkspace("again")) == []


@pytest.mark.parametrize(
    ("queued", "event", "left"),
    [
        (situations.create_queued, SnapshotCreated, SnapshotState.READY),
        (situations.set_queued, CurrentSet, SnapshotState.READY),
        (situations.drop_queued, SnapshotDropped, SnapshotState.DROPPED),
    ],
    ids=["create", "set", "drop"],
)
def test_the_success_of_the_running_task_is_still_recorded(queued, event, left: SnapshotState) -> None:
    case = situations.disabled(situations.running(queued()))
    only(case.story.finish(case.task), event)
    assert case.story.snapshot(case.snapshot).state is left
    assert case.story.workspace.state is WorkspaceState.DISABLED
    assert case.story.workspace.task_state(case.task) is TaskState.SUCCEEDED


def test_an_init_that_ends_after_the_disable_leaves_the_workspace_disabled_with_its_live_tree() -> None:
    story = Story()
    task_id = story.create()
    story.start(task_id)
    story.do(DisableWorkspace())
    done = only(story.finish(task_id), WorkspaceInitialized)
    assert done.workspace_state is WorkspaceState.DISABLED
    assert story.workspace.state is WorkspaceState.DISABLED
    assert story.workspace.live_tree == done.tree


def test_a_failed_attempt_after_the_disable_is_not_retried() -> None:
    case = situations.disabled(situations.create_running())
    cancelled = only(case.story.fail(case.task, RETRYABLE), TaskCancelled)
    assert cancelled.snapshot_state is SnapshotState.FAILED
    assert case.story.workspace.queued == ()


def test_a_task_that_is_handed_back_after_the_disable_is_cancelled() -> None:
    case = situations.disabled(situations.create_running())
    only(case.story.do(HandBack(case.task, case.story.workspace.fence, NOW)), TaskCancelled)


def test_a_takeover_after_the_disable_cancels_the_task() -> None:
    case = situations.disabled(situations.create_running())
    cancelled = only(case.story.start(case.task), TaskCancelled)
    assert cancelled.tree is not None, "the sweeper has to know what the dead holder meant to make"
    assert case.story.workspace.running is None
