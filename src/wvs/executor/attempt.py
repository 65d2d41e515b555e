"""One attempt at a claimed task: record its start in the log, run its operation, record how it ended."""

import random
from typing import Final

import structlog

from wvs.application.write_path import OutcomeUnknownError
from wvs.domain.commands import Command, FailAttempt, HandBack, StartTask
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import CurrentSetSkipped, Event, SnapshotLost, TaskAttemptFailed, TaskCancelled, TaskStarted
from wvs.domain.ids import TASK, format_id
from wvs.domain.states import TaskKind
from wvs.domain.values import TaskError
from wvs.engines.errors import EngineError
from wvs.executor.full_volume import hint_on_full_volume
from wvs.executor.operations import OPERATIONS, Leftover, Started
from wvs.executor.outages import why_volume_is_away
from wvs.executor.reports import execute
from wvs.executor.switching import path_replaced_by, try_to_bring_live
from wvs.executor.workbench import Job
from wvs.failpoints import InjectedFault, failpoint
from wvs.postgres.availability import CONNECTION_LOST
from wvs.queue.lanes import Claim
from wvs.telemetry.failures import survived

log = structlog.get_logger(__name__)

_HOLDER_GONE: Final = TaskError(
    ErrorCode.LEASE_LOST,
    "The executor that ran the task is gone, or hung past its lease.",
    "Another executor took over the task. The first executor's log says why it ended.",
    retryable=True,
)
_OVERDUE: Final = TaskError(
    ErrorCode.DEADLINE_EXCEEDED,
    "The task ran past its deadline and its executor did not respond.",
    "Check whether the volume hangs (wvs volume check), then retry the task.",
)


async def attempt(job: Job) -> Leftover | None:
    """Runs one attempt until its end is recorded; returns a tree to remove once the lane is free, or None.

    Raises `Refused(LEASE_LOST)` if the claim is stale: then the attempt changed nothing.
    """
    if job.claim.link_pending:
        # The executor that was to switch is gone. No task may start while the path shows an older tree.
        await try_to_bring_live(job.bench, job.claim.workspace_id)
    if job.claim.took_over:
        log.warning("task_taken_over", kind=str(job.claim.kind), overdue=job.claim.overdue)
    committed = await execute(job, await _start(job.claim, job))
    started = committed.events[-1] if committed.events else None
    _count_ended(job, committed.events)
    if not isinstance(started, TaskStarted) or committed.workspace is None:
        return None
    structlog.contextvars.bind_contextvars(attempt=started.attempt)
    task = committed.workspace.tasks[started.task_id]
    log.info("task_started", kind=str(task.kind), tree=started.tree, waited_s=round(job.claim.waited_s, 3))
    try:
        leftover = await OPERATIONS[task.kind](job, Started(committed.workspace, task))
    except EngineError as error:
        away = await why_volume_is_away(job.bench, error)
        job.watch.volume_away = away is not None
        reason = away or error
        full = reason.code is ErrorCode.VOLUME_FULL
        hint = await hint_on_full_volume(job, committed.workspace, reason) if full else reason.hint
        await _failed(job, TaskError(reason.code, reason.detail, hint, reason.retryable))
        return None
    except InjectedFault as error:
        await _failed(job, _unexpected(error, job.claim.kind))
        return None
    except (Refused, OutcomeUnknownError, *CONNECTION_LOST):
        raise  # the log could not be written: the next claim of the lane records how this attempt ended
    except Exception as error:
        log.exception("operation_crashed")
        await _failed(job, _unexpected(error, job.claim.kind))
        return None
    _count_final(job, "succeeded")
    log.info("task_succeeded", kind=str(task.kind))
    return leftover


async def _start(claim: Claim, job: Job) -> StartTask:
    return StartTask(
        task_id=claim.task_id,
        fence=claim.fence,
        executor=job.bench.executor_id,
        tree=None if claim.kind is TaskKind.SNAPSHOT_DROP else job.tree,
        now=job.watch.since_claim.until,
        previous=_OVERDUE if claim.overdue else _HOLDER_GONE,
        path_replaced_by=await path_replaced_by(job) if claim.kind is TaskKind.CURRENT_SET else None,
    )


async def _failed(job: Job, error: TaskError) -> None:
    if job.watch.lost:
        raise Refused(ErrorCode.LEASE_LOST, error.detail)
    now = job.watch.since_claim.until
    command: Command
    handed_back = job.watch.draining and error.code is ErrorCode.LEASE_LOST
    if handed_back:
        command = HandBack(job.claim.task_id, job.claim.fence, now, job.watch.touched)
    else:
        jitter = random.uniform(-1, 1)  # noqa: S311 - spreads retries, protects nothing
        command = FailAttempt(
            job.claim.task_id, job.claim.fence, error, now, jitter, job.watch.touched, job.watch.volume_away
        )
    committed = await execute(job, command)
    failpoint("fail.recorded")
    outcome = _count_ended(job, committed.events)
    log.warning("task_attempt_ended", outcome=outcome, code=str(error.code), detail=error.detail)
    if job.claim.kind is not TaskKind.SNAPSHOT_DROP and not job.watch.volume_away:
        await discard(job, job.tree)


async def discard(job: Job, tree: str) -> None:
    """Removes a tree that no event will name. If that fails, the sweeper removes it later."""
    bench = job.bench
    try:
        await bench.run(bench.volume.retire, job.workspace, tree)
        failpoint("discard.retired")
        await bench.run(bench.volume.purge, job.workspace, tree, bench.tidying)
        failpoint("discard.purged")
    except EngineError as error:
        if bench.tidying.reason() is None:
            code = str(error.code)
            survived(bench.metrics, "discard", error, "tree_not_discarded", tree=tree, code=code, hint=error.hint)
        else:
            log.warning("tree_not_discarded", tree=tree, code=str(error.code), error=f"{type(error).__name__}: {error}")


def _unexpected(error: Exception, kind: TaskKind) -> TaskError:
    code = ErrorCode.REMOVE_FAILED if kind is TaskKind.SNAPSHOT_DROP else ErrorCode.CLONE_FAILED
    return TaskError(code, f"{type(error).__name__}: {error}", "The executor's log has the traceback.", retryable=True)


def _count_ended(job: Job, events: list[Event]) -> str:
    """Counts the attempts that these events ended, other than by their operation; returns how the last one ended."""
    outcome = "none"
    for event in events:
        match event:
            case TaskStarted():
                continue
            case SnapshotLost():
                log.error("snapshot_lost", tree=event.tree, detail=event.detail)
            case TaskAttemptFailed():
                outcome = "retried" if event.counted else "waiting" if job.watch.volume_away else "handed_back"
                _count(job, outcome)
            case TaskCancelled():
                outcome = "cancelled"
                _count_final(job, outcome)
            case CurrentSetSkipped():
                outcome = "skipped"
                _count_final(job, outcome)
            case _:
                outcome = "failed"
                _count_final(job, outcome)
    return outcome


def _count_final(job: Job, outcome: str) -> None:
    _count(job, outcome)
    seconds = job.claim.waited_s + job.watch.since_claim.seconds
    job.bench.metrics.task_duration_seconds.labels(kind=str(job.claim.kind), outcome=outcome).observe(seconds)


def _count(job: Job, outcome: str) -> None:
    job.bench.metrics.task_attempts.labels(kind=str(job.claim.kind), outcome=outcome).inc()


def bind_context(claim: Claim, workspace: str, executor_id: str) -> None:
    """Binds the fields of every log line of this attempt."""
    structlog.contextvars.clear_contextvars()
    trace = (claim.traceparent or "").split("-")
    structlog.contextvars.bind_contextvars(
        request_id=claim.request_id,
        trace_id=trace[1] if len(trace) == 4 else None,
        workspace_id=workspace,
        task_id=format_id(TASK, claim.task_id),
        fence=claim.fence,
        executor_id=executor_id,
        idempotency_key=claim.idempotency_key,
    )
