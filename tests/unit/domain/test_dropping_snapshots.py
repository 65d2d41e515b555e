"""Rules 3 and 4 of the design: what blocks a drop, what a cancelled drop leaves, and what replaces a failed one.

A cancelled drop makes the snapshot ready again only if no attempt touched its directory.
"""

import pytest

from tests.unit.domain import situations
from tests.unit.domain.situations import Situation
from tests.unit.domain.story import ASKED_TO_END, FINAL, NOW, RETRYABLE, only
from wvs.domain.commands import CancelTask, DropSnapshot, HandBack, RetryTask, SetCurrent
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import (
    SnapshotDropFailed,
    SnapshotDropped,
    SnapshotDropRequested,
    TaskAttemptFailed,
    TaskCancelled,
    TaskRetried,
    TaskStarted,
)
from wvs.domain.ids import TASK, format_id
from wvs.domain.states import SnapshotState, TaskKind, TaskState


def _drop_refused(case: Situation) -> Refused:
    return case.story.refusal(DropSnapshot(case.snapshot, case.story.new_id()))


def test_every_blocker_is_named_current_first_then_the_tasks_in_the_order_accepted() -> None:
    case = situations.current()
    story = case.story
    failed = story.request_current(case.snapshot, reset=True)
    story.run_to_failure(failed)
    running = story.request_current(case.snapshot, reset=True)
    story.start(running)
    queued = story.request_current(case.snapshot)
    refused = _drop_refused(case)
    assert refused.code is ErrorCode.SNAPSHOT_IN_USE
    assert refused.fields == {
        "blockers": [
            {"kind": "current"},
            *({"kind": "task", "id": format_id(TASK, task_id)} for task_id in (failed, running, queued)),
        ]
    }


@pytest.mark.parametrize("further", [lambda case: case, situations.running, situations.waiting, situations.failed])
def test_a_retryable_task_blocks_the_drop_until_it_is_cancelled(further) -> None:
    case: Situation = further(situations.set_queued())
    assert _drop_refused(case).fields["blockers"] == [{"kind": "task", "id": format_id(TASK, case.task)}]
    case.story.cancel(case.task)
    if case.story.workspace.running is not None:
        assert _drop_refused(case).code is ErrorCode.SNAPSHOT_IN_USE
        case.story.fail(case.task, ASKED_TO_END)
    case.story.request_drop(case.snapshot)


def test_a_succeeded_mover_no_longer_blocks_but_current_does() -> None:
    case = situations.succeeded(situations.set_queued())
    assert _drop_refused(case).fields["blockers"] == [{"kind": "current"}]


def test_a_second_drop_names_the_first() -> None:
    case = situations.drop_queued()
    assert _drop_refused(case).fields["blockers"] == [{"kind": "task", "id": format_id(TASK, case.task)}]


def test_an_unfinished_snapshot_is_dropped_only_after_its_task_was_cancelled() -> None:
    case = situations.failed(situations.create_queued())
    assert _drop_refused(case).fields["blockers"] == [{"kind": "task", "id": format_id(TASK, case.task)}]
    case.story.cancel(case.task)
    drop = case.story.request_drop(case.snapshot)
    case.story.start(drop)
    dropped = only(case.story.finish(drop), SnapshotDropped)
    assert dropped.tree is None, "a snapshot that was never made has no tree"


def test_the_check_and_the_move_to_dropping_are_one_decision() -> None:
    case = situations.drop_queued()
    assert case.story.log[-1] == SnapshotDropRequested(case.snapshot, case.task)
    assert case.story.snapshot(case.snapshot).state is SnapshotState.DROPPING
    refused = case.story.refusal(SetCurrent(case.snapshot, case.story.new_id()))
    assert refused.code is ErrorCode.SNAPSHOT_NOT_READY


def test_a_dropped_snapshot_names_the_tree_that_was_removed() -> None:
    case = situations.running(situations.drop_queued())
    tree, fence = case.story.snapshot(case.snapshot).tree, case.story.workspace.fence
    assert case.story.finish(case.task) == [SnapshotDropped(case.snapshot, case.task, fence, tree)]
    assert case.story.workspace.blockers(case.snapshot) == []


def test_a_drop_cancelled_before_it_ran_leaves_the_snapshot_ready() -> None:
    case = situations.cancelled(situations.drop_queued())
    assert case.story.log[-1] == TaskCancelled(
        case.task, TaskKind.SNAPSHOT_DROP, case.snapshot, SnapshotState.READY, None, "cancelled on request", None
    )
    case.story.request_current(case.snapshot)


def test_cancelling_a_drop_that_removed_nothing_makes_the_snapshot_ready() -> None:
    case = situations.cancelling(situations.drop_queued())
    case.story.fail(case.task, ASKED_TO_END, touched=False)
    assert case.story.snapshot(case.snapshot).state is SnapshotState.READY


def test_cancelling_a_drop_that_removed_files_makes_it_drop_failed() -> None:
    case = situations.cancelling(situations.drop_queued())
    case.story.fail(case.task, ASKED_TO_END, touched=True)
    assert case.story.snapshot(case.snapshot).state is SnapshotState.DROP_FAILED


@pytest.mark.parametrize(("touched", "left"), [(False, SnapshotState.READY), (True, SnapshotState.DROP_FAILED)])
def test_a_drop_cancelled_while_it_waits_for_its_retry_remembers_whether_it_had_begun(
    touched: bool, left: SnapshotState
) -> None:
    case = situations.running(situations.drop_queued())
    assert only(case.story.fail(case.task, RETRYABLE, touched=touched), TaskAttemptFailed).touched is touched
    case.story.cancel(case.task)
    assert case.story.snapshot(case.snapshot).state is left


@pytest.mark.parametrize(("touched", "left"), [(False, SnapshotState.READY), (True, SnapshotState.DROP_FAILED)])
def test_a_drop_handed_back_remembers_whether_it_had_begun(touched: bool, left: SnapshotState) -> None:
    case = situations.running(situations.drop_queued())
    case.story.do(HandBack(case.task, case.story.workspace.fence, NOW, touched=touched))
    case.story.cancel(case.task)
    assert case.story.snapshot(case.snapshot).state is left


def test_a_drop_that_has_begun_stays_begun_whatever_a_later_attempt_reports() -> None:
    case = situations.waiting(situations.drop_queued())
    case.story.start(case.task)
    case.story.do(CancelTask(case.task))
    case.story.fail(case.task, ASKED_TO_END, touched=False)
    assert case.story.snapshot(case.snapshot).state is SnapshotState.DROP_FAILED


def test_a_drop_whose_holder_vanished_counts_as_begun() -> None:
    case = situations.running(situations.drop_queued())
    lost, started = case.story.start(case.task)
    assert isinstance(lost, TaskAttemptFailed)
    assert lost.touched
    assert isinstance(started, TaskStarted)
    case.story.do(CancelTask(case.task))
    case.story.fail(case.task, ASKED_TO_END, touched=False)
    assert case.story.snapshot(case.snapshot).state is SnapshotState.DROP_FAILED


@pytest.mark.parametrize(
    "source",
    [
        lambda: situations.cancelled(situations.failed(situations.create_queued())),
        lambda: situations.lost(situations.ready()),
        lambda: situations.cancelled_while_running(situations.drop_queued()),
    ],
    ids=["failed", "lost", "drop_failed"],
)
def test_cancelling_a_drop_of_a_snapshot_that_was_not_ready_does_not_make_it_ready(source) -> None:
    case: Situation = source()
    case.story.cancel(case.story.request_drop(case.snapshot))
    assert case.story.snapshot(case.snapshot).state is SnapshotState.DROP_FAILED


def test_a_new_drop_replaces_the_failed_one() -> None:
    case = situations.failed(situations.drop_queued())
    successor, tree = case.story.new_id(), case.story.task(case.task).tree
    assert case.story.do(DropSnapshot(case.snapshot, successor)) == [
        TaskCancelled(case.task, TaskKind.SNAPSHOT_DROP, case.snapshot, None, None, "superseded", tree),
        SnapshotDropRequested(case.snapshot, successor),
    ]
    assert case.story.workspace.task_state(case.task) is TaskState.CANCELLED
    assert case.story.snapshot(case.snapshot).tasks == (successor,)
    assert case.story.refusal(RetryTask(case.task)).code is ErrorCode.TASK_NOT_RETRYABLE


def test_a_new_drop_after_a_failed_one_is_refused_while_the_queue_is_full_and_leaves_the_failed_one() -> None:
    case = situations.failed(situations.drop_queued())
    for _ in range(100):
        case.story.request_snapshot()
    assert _drop_refused(case).code is ErrorCode.WORKSPACE_QUEUE_FULL
    assert case.story.workspace.task_state(case.task) is TaskState.FAILED


def test_a_failed_drop_is_retried_into_dropping_and_is_then_touched() -> None:
    case = situations.failed(situations.drop_queued())
    assert isinstance(case.story.log[-1], SnapshotDropFailed)
    retried = case.story.do(RetryTask(case.task))
    assert retried == [TaskRetried(case.task, TaskKind.SNAPSHOT_DROP, case.snapshot)]
    assert case.story.snapshot(case.snapshot).state is SnapshotState.DROPPING
    case.story.cancel(case.task)
    assert case.story.snapshot(case.snapshot).state is SnapshotState.DROP_FAILED


def test_a_failed_drop_keeps_its_error() -> None:
    case = situations.running(situations.drop_queued())
    fence = case.story.workspace.fence
    assert case.story.fail(case.task) == [SnapshotDropFailed(case.snapshot, case.task, fence, 1, FINAL)]
