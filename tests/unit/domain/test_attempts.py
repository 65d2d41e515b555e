"""The lane and its attempts: order, fences, takeover, backoff, hand-back, and the limits."""

from datetime import timedelta

from msgspec.structs import replace

from tests.unit.domain import orders, situations
from tests.unit.domain.story import CERTIFICATE, FINAL, HOLDER_GONE, NOW, REPORT, RETRYABLE, only, tree_of
from wvs.domain.commands import CancelTask, FailAttempt, FinishSnapshot, HandBack, RetryTask, StartTask
from wvs.domain.errors import ErrorCode
from wvs.domain.events import (
    Event,
    SnapshotCreated,
    SnapshotFailed,
    TaskAttemptFailed,
    TaskCancelled,
    TaskRetried,
    TaskStarted,
)
from wvs.domain.policy import QUEUE_LIMIT, RETRY
from wvs.domain.states import SnapshotState, TaskKind, TaskState
from wvs.domain.values import TaskError

AWAY = TaskError(ErrorCode.VOLUME_UNAVAILABLE, "ENOTCONN", "mount it", retryable=True)
MAX_ATTEMPTS = RETRY[TaskKind.SNAPSHOT_CREATE].max_attempts


def test_a_start_names_attempt_fence_executor_and_the_tree_it_intends_to_make() -> None:
    case = situations.create_queued()
    assert case.story.start(case.task) == [
        TaskStarted(case.task, TaskKind.SNAPSHOT_CREATE, 1, 2, "executor-1", tree_of(case.task, 2))
    ]


def test_only_the_head_of_the_lane_starts() -> None:
    story = situations.active().story
    _, first = story.request_snapshot()
    _, second = story.request_snapshot()
    stale = story.refusal(StartTask(second, 9, "executor-1", None, NOW, HOLDER_GONE))
    assert stale.code is ErrorCode.LEASE_LOST
    story.start(first)
    assert story.refusal(StartTask(second, 9, "executor-1", None, NOW, HOLDER_GONE)).code is ErrorCode.LEASE_LOST
    story.finish(first)
    only(story.start(second), TaskStarted)


def test_a_fence_that_is_not_greater_starts_nothing() -> None:
    case = situations.create_queued()
    fence = case.story.workspace.fence
    refused = case.story.refusal(StartTask(case.task, fence, "executor-1", None, NOW, HOLDER_GONE))
    assert refused.code is ErrorCode.LEASE_LOST
    assert refused.fields == {"fence": fence}


def test_the_attempt_of_a_dead_holder_fails_before_the_next_one_starts_under_a_greater_fence() -> None:
    case = situations.create_running()
    old = case.story.workspace.fence
    events = case.story.start(case.task)
    assert events == [
        TaskAttemptFailed(
            task_id=case.task,
            kind=TaskKind.SNAPSHOT_CREATE,
            attempt=1,
            fence=old,
            error=HOLDER_GONE,
            tree=tree_of(case.task, old),
            delay_s=0.0,
            next_attempt_at=NOW,
            counted=True,
            touched=True,
        ),
        TaskStarted(case.task, TaskKind.SNAPSHOT_CREATE, 2, old + 1, "executor-1", tree_of(case.task, old + 1)),
    ]
    assert case.story.workspace.running == case.task


def test_after_a_takeover_the_old_holder_can_commit_nothing() -> None:
    case = situations.create_running()
    old = case.story.workspace.fence
    case.story.start(case.task)
    for stale in (
        FinishSnapshot(case.task, old, tree_of(case.task, old), REPORT, CERTIFICATE),
        FailAttempt(case.task, old, FINAL, NOW, jitter=0.0),
        HandBack(case.task, old, NOW),
    ):
        refused = case.story.refusal(stale)
        assert refused.code is ErrorCode.LEASE_LOST
        assert refused.fields == {"fence": old + 1}
    only(case.story.finish(case.task), SnapshotCreated)


def test_a_holder_that_dies_on_its_last_attempt_is_not_replaced() -> None:
    case = situations.on_last_attempt(situations.create_queued())
    fence = case.story.workspace.fence
    assert case.story.start(case.task) == [
        SnapshotFailed(case.snapshot, case.task, fence, MAX_ATTEMPTS, HOLDER_GONE, tree_of(case.task, fence))
    ]


def test_takeovers_do_not_add_attempts_to_those_that_the_kind_allows() -> None:
    case = situations.create_queued()
    starts = 0
    while case.story.workspace.task_state(case.task) in (TaskState.QUEUED, TaskState.RUNNING):
        starts += sum(isinstance(event, TaskStarted) for event in case.story.start(case.task))
    assert starts == MAX_ATTEMPTS
    assert isinstance(case.story.log[-1], SnapshotFailed)


def test_retries_wait_exponentially_longer_until_no_attempts_are_left() -> None:
    case = situations.create_queued()
    delays: list[float] = []
    for attempt in range(1, MAX_ATTEMPTS):
        case.story.start(case.task)
        again = only(case.story.fail(case.task, RETRYABLE), TaskAttemptFailed)
        assert (again.attempt, again.counted) == (attempt, True)
        assert again.next_attempt_at == NOW + timedelta(seconds=again.delay_s)
        delays.append(again.delay_s)
    assert delays == [0.5, 1.0, 2.0]
    case.story.start(case.task)
    failed = only(case.story.fail(case.task, RETRYABLE), SnapshotFailed)
    assert (failed.attempt, failed.error) == (MAX_ATTEMPTS, RETRYABLE)


def test_the_jitter_of_the_command_spreads_the_delay() -> None:
    case = situations.create_running()
    command = FailAttempt(case.task, case.story.workspace.fence, RETRYABLE, NOW, jitter=1.0)
    assert only(case.story.do(command), TaskAttemptFailed).delay_s == 0.625


def test_an_error_that_is_not_retryable_fails_the_task_at_once() -> None:
    case = situations.create_running()
    only(case.story.fail(case.task, FINAL), SnapshotFailed)
    assert case.story.snapshot(case.snapshot).state is SnapshotState.FAILED


def test_a_task_that_waits_for_its_retry_stays_at_the_head_of_its_lane() -> None:
    story = situations.active().story
    _, first = story.request_snapshot()
    _, second = story.request_snapshot()
    story.start(first)
    story.fail(first, RETRYABLE)
    assert story.workspace.queued == (first, second)
    assert story.refusal(StartTask(second, 9, "executor-1", None, NOW, HOLDER_GONE)).code is ErrorCode.LEASE_LOST
    assert only(story.start(first), TaskStarted).attempt == 2


def test_a_task_that_a_person_retries_is_queued_last_and_has_all_its_attempts_again() -> None:
    case = situations.on_last_attempt(situations.create_queued())
    case.story.fail(case.task)
    _, later = case.story.request_snapshot()
    assert case.story.do(RetryTask(case.task)) == [TaskRetried(case.task, TaskKind.SNAPSHOT_CREATE, case.snapshot)]
    assert case.story.workspace.queued == (later, case.task)
    assert case.story.snapshot(case.snapshot).state is SnapshotState.CREATING
    case.story.start(later)
    case.story.finish(later)
    assert only(case.story.start(case.task), TaskStarted).attempt == 1


def test_a_task_that_is_handed_back_keeps_its_attempt_and_its_place() -> None:
    case = situations.on_last_attempt(situations.create_queued())
    _, later = case.story.request_snapshot()
    back = only(case.story.do(HandBack(case.task, case.story.workspace.fence, NOW)), TaskAttemptFailed)
    assert (back.attempt, back.counted, back.delay_s, back.next_attempt_at) == (MAX_ATTEMPTS, False, 0.0, NOW)
    assert (back.error.code, back.error.retryable) == (ErrorCode.LEASE_LOST, True)
    assert case.story.workspace.queued == (case.task, later)
    assert only(case.story.start(case.task), TaskStarted).attempt == MAX_ATTEMPTS
    only(case.story.finish(case.task), SnapshotCreated)


def test_a_task_with_a_cancel_request_is_cancelled_when_it_is_handed_back() -> None:
    case = situations.cancelling(situations.create_queued())
    only(case.story.do(HandBack(case.task, case.story.workspace.fence, NOW)), TaskCancelled)


def test_a_cancel_that_comes_too_late_does_not_undo_a_success() -> None:
    case = situations.cancelling(situations.create_queued())
    only(case.story.finish(case.task), SnapshotCreated)
    assert case.story.workspace.task_state(case.task) is TaskState.SUCCEEDED


def test_a_cancelled_attempt_names_the_tree_that_is_left_over() -> None:
    case = situations.create_running()
    fence = case.story.workspace.fence
    error = replace(RETRYABLE, code=ErrorCode.CANCELLED)
    assert only(case.story.fail(case.task, error), TaskCancelled).tree == tree_of(case.task, fence)


def test_the_queue_holds_at_most_a_hundred_tasks() -> None:
    case = situations.ready()
    for _ in range(QUEUE_LIMIT):
        case.story.request_snapshot()
    one_more = ("CreateSnapshot", "SetCurrent", "SetCurrent, reset", "DropSnapshot")
    refusals = {name: case.story.refusal(orders.ALL[name](case)) for name in one_more}
    assert {name: refused.code for name, refused in refusals.items()} == dict.fromkeys(
        refusals, ErrorCode.WORKSPACE_QUEUE_FULL
    )
    assert all(refused.fields == {"limit": QUEUE_LIMIT} for refused in refusals.values())


def test_a_running_task_does_not_count_as_queued_and_returns_even_to_a_full_queue() -> None:
    story = situations.active().story
    _, running = story.request_snapshot()
    story.start(running)
    for _ in range(QUEUE_LIMIT):
        story.request_snapshot()
    story.fail(running, RETRYABLE)
    assert len(story.workspace.queued) == QUEUE_LIMIT + 1
    assert story.workspace.queued[0] == running


def test_a_retry_by_a_person_is_refused_while_the_queue_is_full() -> None:
    case = situations.failed(situations.create_queued())
    for _ in range(QUEUE_LIMIT):
        case.story.request_snapshot()
    assert case.story.refusal(RetryTask(case.task)).code is ErrorCode.WORKSPACE_QUEUE_FULL


def away(case: situations.Situation, minutes: float = 0, *, jitter: float = 0.0) -> list[Event]:
    """An attempt starts and finds the volume away, `minutes` after noon."""
    case.story.start(case.task)
    now = NOW + timedelta(minutes=minutes)
    fence = case.story.workspace.fence
    return case.story.do(FailAttempt(case.task, fence, AWAY, now, jitter, touched=True, volume_away=True))


def test_attempts_that_find_the_volume_away_do_not_count_and_say_how_long_the_task_waits() -> None:
    case = situations.create_queued()
    delays: list[float] = []
    for minutes in (0, 0.05, 0.1, 1, 59.9):
        waiting = only(away(case, minutes), TaskAttemptFailed)
        assert (waiting.attempt, waiting.counted, waiting.error.retryable) == (1, False, True)
        assert waiting.error.code is ErrorCode.VOLUME_UNAVAILABLE
        assert waiting.error.detail == "waiting for the volume since 2026-01-01 12:00:00 UTC: ENOTCONN"
        assert waiting.error.hint == "mount it; WVS tries again by itself until 2026-01-01 13:00:00 UTC"
        delays.append(waiting.delay_s)
    assert delays == [0.5, 1.5, 3.0, 10.0, 10.0]
    assert case.story.workspace.tasks[case.task].attempt == 0


def test_the_pauses_of_tasks_that_wait_for_the_volume_are_spread() -> None:
    assert only(away(situations.create_queued(), jitter=1.0), TaskAttemptFailed).delay_s == 0.625


def test_a_task_fails_when_the_volume_was_away_for_as_long_as_an_attempt_may_take() -> None:
    case = situations.create_queued()
    away(case)
    failed = only(away(case, minutes=60), SnapshotFailed)
    assert failed.error == replace(AWAY, detail="The volume was away for more than 3600 s: ENOTCONN")
    case.story.do(RetryTask(case.task))
    waiting = only(away(case, minutes=61), TaskAttemptFailed)
    assert "since 2026-01-01 13:01:00 UTC" in waiting.error.detail


def test_an_attempt_that_found_the_volume_there_ends_the_wait_and_one_handed_back_does_not() -> None:
    case = situations.create_queued()
    away(case)
    case.story.start(case.task)
    case.story.do(HandBack(case.task, case.story.workspace.fence, NOW))
    assert "since 2026-01-01 12:00:00" in only(away(case, minutes=5), TaskAttemptFailed).error.detail
    case.story.start(case.task)
    case.story.fail(case.task, RETRYABLE)
    assert "since 2026-01-01 12:10:00" in only(away(case, minutes=10), TaskAttemptFailed).error.detail


def test_a_task_that_waits_for_the_volume_can_be_cancelled_while_an_attempt_runs() -> None:
    case = situations.create_running()
    case.story.do(CancelTask(case.task))
    fence = case.story.workspace.fence
    only(case.story.do(FailAttempt(case.task, fence, AWAY, NOW, 0.0, volume_away=True)), TaskCancelled)
