"""Rule 2 of the design and related cases: no-op, reset, If-Match, and a missing source."""

from msgspec.structs import replace

from tests.unit.domain import situations
from tests.unit.domain.story import CERTIFICATE, NO_SOURCE, REPORT, only, tree_of
from wvs.domain.commands import DropSnapshot, ReportLost, RetryTask, SetCurrent
from wvs.domain.errors import ErrorCode
from wvs.domain.events import (
    CurrentSet,
    CurrentSetFailed,
    CurrentSetRequested,
    CurrentSetSkipped,
    SnapshotLost,
    TaskAttemptFailed,
    TaskCancelled,
    TaskRetried,
    TaskStarted,
)
from wvs.domain.ids import TASK, format_id
from wvs.domain.states import SnapshotState, TaskKind, TaskState
from wvs.domain.values import TaskError


def test_setting_the_current_snapshot_succeeds_at_once_as_a_no_op() -> None:
    case = situations.current()
    task_id = case.story.new_id()
    events = case.story.do(SetCurrent(case.snapshot, task_id))
    assert events == [CurrentSetSkipped(case.snapshot, task_id, at_request=True)]
    assert case.story.workspace.task_state(task_id) is TaskState.SUCCEEDED
    assert case.story.workspace.queued == ()


def test_a_no_op_at_request_holds_no_reference_and_works_with_a_full_queue() -> None:
    case = situations.current()
    for _ in range(100):
        case.story.request_snapshot()
    only(case.story.do(SetCurrent(case.snapshot, case.story.new_id())), CurrentSetSkipped)
    assert case.story.snapshot(case.snapshot).tasks == ()


def test_reset_replaces_the_live_tree_by_a_clone_of_the_current_snapshot() -> None:
    case = situations.current()
    before = case.story.workspace
    task_id = case.story.request_current(case.snapshot, reset=True)
    assert case.story.log[-1] == CurrentSetRequested(case.snapshot, task_id, reset=True)
    assert [type(e) for e in case.story.start(task_id)] == [TaskStarted]
    moved = only(case.story.finish(task_id), CurrentSet)
    assert (moved.snapshot_id, moved.epoch, moved.retired_tree) == (case.snapshot, before.epoch + 1, before.live_tree)


def test_reset_is_never_implied_by_an_earlier_request() -> None:
    case = situations.current()
    first = case.story.request_current(case.snapshot, reset=True)
    second = case.story.request_current(case.snapshot)
    case.story.start(first)
    case.story.finish(first)
    assert [type(e) for e in case.story.start(second)] == [TaskStarted, CurrentSetSkipped]


def test_while_a_mover_is_queued_the_no_op_is_decided_at_execution() -> None:
    case = situations.ready()
    other = case.story.current()
    mover = case.story.request_current(case.snapshot)
    back = case.story.request_current(other)
    assert case.story.log[-1] == CurrentSetRequested(other, back, reset=False)
    case.story.cancel(mover)
    started, skipped = case.story.start(back)
    assert isinstance(started, TaskStarted)
    assert started.tree is None, "a task that ends at once must not announce a tree"
    assert skipped == CurrentSetSkipped(other, back, at_request=False)
    assert case.story.workspace.task_state(back) is TaskState.SUCCEEDED
    assert case.story.workspace.running is None


def test_a_task_that_changes_nothing_fails_while_something_else_stands_at_the_path() -> None:
    case = situations.ready()
    other = case.story.current()
    mover = case.story.request_current(case.snapshot)
    back = case.story.request_current(other)
    case.story.cancel(mover)
    started, failed = case.story.start(back, path_replaced_by="a directory")
    assert isinstance(started, TaskStarted)
    assert isinstance(failed, CurrentSetFailed)
    assert (started.tree, failed.error.code, failed.error.retryable) == (None, ErrorCode.PATH_REPLACED, False)
    assert "a directory is at the workspace's path" in failed.error.detail
    case.story.do(RetryTask(back))
    assert [type(e) for e in case.story.start(back)] == [TaskStarted, CurrentSetSkipped]


def test_a_task_that_replaces_the_live_tree_starts_whatever_stands_at_the_path() -> None:
    case = situations.current()
    reset = case.story.request_current(case.snapshot, reset=True)
    assert [type(e) for e in case.story.start(reset, path_replaced_by="a directory")] == [TaskStarted]


def test_while_a_mover_is_running_or_waits_for_its_retry_the_no_op_is_not_decided_at_request() -> None:
    for further in (situations.running, situations.waiting):
        case = situations.ready()
        other = case.story.current()
        mover = case.story.request_current(case.snapshot)
        further(situations.Situation(case.story, case.snapshot, mover))
        only(case.story.do(SetCurrent(other, case.story.new_id())), CurrentSetRequested)


def test_a_failed_mover_allows_a_no_op_at_request_but_its_retry_does_not() -> None:
    case = situations.ready()
    other = case.story.current()
    mover = case.story.request_current(case.snapshot)
    case.story.run_to_failure(mover)
    only(case.story.do(SetCurrent(other, case.story.new_id())), CurrentSetSkipped)
    case.story.do(RetryTask(mover))
    assert case.story.workspace.movers == (mover,)
    only(case.story.do(SetCurrent(other, case.story.new_id())), CurrentSetRequested)


def test_the_pointer_the_live_tree_and_the_epoch_change_together() -> None:
    case = situations.running(situations.set_queued())
    before, fence = case.story.workspace, case.story.workspace.fence
    events = case.story.finish(case.task)
    tree = tree_of(case.task, fence)
    assert events == [
        CurrentSet(case.snapshot, case.task, fence, tree, before.live_tree, before.epoch + 1, REPORT, CERTIFICATE)
    ]
    after = case.story.workspace
    assert (after.current, after.live_tree, after.epoch) == (case.snapshot, tree, before.epoch + 1)


def test_if_match_with_the_present_epoch_is_accepted() -> None:
    case = situations.ready()
    epochs = frozenset({case.story.workspace.epoch, 99})
    only(case.story.do(SetCurrent(case.snapshot, case.story.new_id(), if_epochs=epochs)), CurrentSetRequested)


def test_if_match_with_another_epoch_is_refused_even_for_a_no_op() -> None:
    case = situations.current()
    refused = case.story.refusal(SetCurrent(case.snapshot, case.story.new_id(), if_epochs=frozenset({1})))
    assert refused.code is ErrorCode.CURRENT_CHANGED
    assert refused.fields == {"epoch": 2, "blockers": []}
    assert "has changed" in refused.detail


def test_if_match_with_no_epoch_at_all_is_refused() -> None:
    case = situations.ready()
    refused = case.story.refusal(SetCurrent(case.snapshot, case.story.new_id(), if_epochs=frozenset()))
    assert refused.code is ErrorCode.CURRENT_CHANGED


def test_if_match_is_refused_while_a_mover_is_accepted_and_names_it() -> None:
    case = situations.set_queued()
    epoch = case.story.workspace.epoch
    command = SetCurrent(case.snapshot, case.story.new_id(), if_epochs=frozenset({epoch}))
    refused = case.story.refusal(command)
    assert refused.code is ErrorCode.CURRENT_CHANGED
    assert refused.fields == {"epoch": epoch, "blockers": [{"kind": "task", "id": format_id(TASK, case.task)}]}
    assert "about to change" in refused.detail
    case.story.cancel(case.task)
    only(case.story.do(command), CurrentSetRequested)


def test_a_missing_source_marks_the_snapshot_lost_and_fails_the_task() -> None:
    case = situations.running(situations.set_queued())
    snapshot_tree, fence = case.story.snapshot(case.snapshot).tree, case.story.workspace.fence
    assert snapshot_tree is not None
    assert case.story.fail(case.task, NO_SOURCE) == [
        SnapshotLost(case.snapshot, snapshot_tree, NO_SOURCE.detail),
        CurrentSetFailed(case.snapshot, case.task, fence, 1, NO_SOURCE, tree_of(case.task, fence)),
    ]
    refused = case.story.refusal(RetryTask(case.task))
    assert refused.code is ErrorCode.SNAPSHOT_NOT_READY
    assert refused.fields == {"state": SnapshotState.LOST}


def test_a_missing_source_is_reported_once_even_if_the_error_is_retryable() -> None:
    case = situations.running(situations.set_queued())
    again = case.story.fail(case.task, replace(NO_SOURCE, retryable=True))
    assert [type(e) for e in again] == [SnapshotLost, TaskAttemptFailed]
    started, failed = case.story.start(case.task)
    assert isinstance(started, TaskStarted)
    assert started.tree is None
    assert failed == CurrentSetFailed(
        case.snapshot,
        case.task,
        case.story.workspace.fence,
        2,
        TaskError(ErrorCode.TREE_MISSING, "The snapshot became lost while the task waited."),
        None,
    )


def test_a_source_reported_lost_before_its_error_arrives_is_not_reported_twice() -> None:
    case = situations.lost(situations.running(situations.set_queued()))
    only(case.story.fail(case.task, NO_SOURCE), CurrentSetFailed)


def test_a_tree_missing_in_another_kind_of_task_marks_no_snapshot_lost() -> None:
    case = situations.running(situations.drop_queued())
    events = case.story.fail(case.task, NO_SOURCE)
    assert SnapshotLost not in {type(e) for e in events}


def test_a_source_reported_lost_during_its_clone_becomes_current_if_the_clone_was_proven() -> None:
    case = situations.lost(situations.running(situations.set_queued()))
    only(case.story.finish(case.task), CurrentSet)
    assert case.story.workspace.current == case.snapshot


def test_another_snapshot_can_replace_a_lost_current_one() -> None:
    case = situations.lost(situations.current())
    story = case.story
    assert story.refusal(SetCurrent(case.snapshot, story.new_id(), reset=True)).code is ErrorCode.SNAPSHOT_NOT_READY
    refused = story.refusal(DropSnapshot(case.snapshot, story.new_id()))
    assert refused.fields["blockers"] == [{"kind": "current"}]
    other = story.ready()
    mover = story.request_current(other)
    story.start(mover)
    story.finish(mover)
    drop = story.request_drop(case.snapshot)
    story.start(drop)
    story.finish(drop)
    assert story.snapshot(case.snapshot).state is SnapshotState.DROPPED


def test_a_lost_snapshot_is_reported_with_its_tree_and_only_once() -> None:
    case = situations.ready()
    tree = case.story.snapshot(case.snapshot).tree
    assert tree is not None
    assert case.story.do(ReportLost(case.snapshot, "ENOENT")) == [SnapshotLost(case.snapshot, tree, "ENOENT")]
    assert case.story.do(ReportLost(case.snapshot, "ENOENT")) == []


def test_abandoning_a_failed_mover_releases_its_reference() -> None:
    case = situations.failed(situations.set_queued())
    assert case.story.workspace.blockers(case.snapshot) == [case.task]
    cancelled = only(case.story.cancel(case.task), TaskCancelled)
    assert (cancelled.kind, cancelled.snapshot_state, cancelled.reason) == (
        TaskKind.CURRENT_SET,
        None,
        "abandoned on request",
    )
    case.story.request_drop(case.snapshot)


def test_a_retried_mover_keeps_its_reset() -> None:
    case = situations.current()
    task_id = case.story.request_current(case.snapshot, reset=True)
    case.story.run_to_failure(task_id)
    retried = only(case.story.do(RetryTask(task_id)), TaskRetried)
    assert retried == TaskRetried(task_id, TaskKind.CURRENT_SET, case.snapshot)
    assert [type(e) for e in case.story.start(task_id)] == [TaskStarted]


def test_a_retried_mover_whose_snapshot_became_current_is_a_no_op_at_execution() -> None:
    case = situations.failed(situations.set_queued())
    second = case.story.request_current(case.snapshot)
    case.story.start(second)
    case.story.finish(second)
    case.story.do(RetryTask(case.task))
    assert [type(e) for e in case.story.start(case.task)] == [TaskStarted, CurrentSetSkipped]
