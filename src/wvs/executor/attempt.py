"""One attempt at a claimed task: start it in the log, run its operation, and record how it ended."""

import random
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from wvs.domain.commands import Command, FailAttempt, HandBack, StartTask
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import Event, TaskAttemptFailed, TaskStarted
from wvs.domain.ids import TASK, format_id
from wvs.domain.states import TaskKind
from wvs.domain.values import TaskError
from wvs.engines.errors import EngineError
from wvs.eventlog.write_path import CONNECTION_LOST, Committed, OutcomeUnknownError
from wvs.executor.operations import OPERATIONS, Leftover, Started
from wvs.executor.origin import origin_of
from wvs.executor.workbench import Job
from wvs.failpoints import InjectedFault
from wvs.queue.lanes import Claim

log = structlog.get_logger(__name__)

_HOLDER_GONE: Final = TaskError(
    ErrorCode.LEASE_LOST,
    "The executor that ran the task is gone or hung past its lease.",
    "The task was taken over; see the executor's log for why it ended.",
    retryable=True,
)
_OVERDUE: Final = TaskError(
    ErrorCode.DEADLINE_EXCEEDED,
    "The task ran past its deadline and its executor did not answer.",
    "See whether the volume hangs (wvs volume check), then retry the task.",
)


async def attempt(job: Job) -> Leftover | None:
    """Runs one attempt to its recorded end; what it returns is to be removed once the lane is free.

    Raises `Refused(LEASE_LOST)` if the claim turned out to be stale: then nothing was changed.
    """
    committed = await _execute(job, _start(job.claim, job))
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
        await _failed(job, TaskError(error.code, error.detail, error.hint, error.retryable))
        return None
    except InjectedFault as error:
        await _failed(job, _unexpected(error, job.claim.kind))
        return None
    except (Refused, OutcomeUnknownError, *CONNECTION_LOST):
        raise  # the log could not be written: whoever claims the lane next records what became of this attempt
    except Exception as error:
        log.exception("operation_crashed")
        await _failed(job, _unexpected(error, job.claim.kind))
        return None
    _count(job, "succeeded")
    log.info("task_succeeded", kind=str(task.kind))
    return leftover


def _start(claim: Claim, job: Job) -> StartTask:
    return StartTask(
        task_id=claim.task_id,
        fence=claim.fence,
        executor=job.bench.executor_id,
        tree=None if claim.kind is TaskKind.SNAPSHOT_DROP else job.tree,
        now=datetime.now(UTC),
        previous=_OVERDUE if claim.overdue else _HOLDER_GONE,
    )


async def _failed(job: Job, error: TaskError) -> None:
    if job.guard.lost:
        raise Refused(ErrorCode.LEASE_LOST, error.detail)
    now = datetime.now(UTC)
    command: Command
    if job.guard.draining and error.code is ErrorCode.LEASE_LOST:
        command = HandBack(job.claim.task_id, job.claim.fence, now)
    else:
        touched = job.claim.kind is not TaskKind.SNAPSHOT_DROP or error.code is not ErrorCode.CANCELLED
        jitter = random.uniform(-1, 1)  # noqa: S311 - spreads retries, protects nothing
        command = FailAttempt(job.claim.task_id, job.claim.fence, error, now, jitter, touched)
    committed = await _execute(job, command)
    outcome = _count_ended(job, committed.events)
    log.warning("task_attempt_ended", outcome=outcome, code=str(error.code), detail=error.detail)
    if job.claim.kind is not TaskKind.SNAPSHOT_DROP:
        await discard(job, job.tree)


async def discard(job: Job, tree: str) -> None:
    """Removes a tree that no event will name, as far as it can be removed now; the sweeper does the rest."""
    try:
        await job.bench.run(job.bench.volume.retire, job.workspace, tree)
        await job.bench.run(job.bench.volume.purge, job.workspace, tree)
    except EngineError as error:
        job.bench.metrics.ignored_failures.labels(where="discard").inc()
        log.warning("tree_not_discarded", tree=tree, code=str(error.code), detail=error.detail)


def _unexpected(error: Exception, kind: TaskKind) -> TaskError:
    code = ErrorCode.REMOVE_FAILED if kind is TaskKind.SNAPSHOT_DROP else ErrorCode.CLONE_FAILED
    return TaskError(code, f"{type(error).__name__}: {error}", "The executor's log has the traceback.", retryable=True)


async def _execute(job: Job, command: Command) -> Committed:
    return await job.bench.path.execute(
        job.claim.workspace_id, command, at=datetime.now(UTC), origin=origin_of(job), hold=job.hold
    )


def _count_ended(job: Job, events: list[Event]) -> str:
    """Counts an attempt that these events ended otherwise than by its operation; says how."""
    outcome = "none"
    for event in events:
        match event:
            case TaskStarted():
                continue
            case TaskAttemptFailed():
                outcome = "retried"
            case _:
                outcome = type(event).__name__
        _count(job, _OUTCOMES.get(outcome, "failed"))
    return outcome


_OUTCOMES: Final = {"retried": "retried", "TaskCancelled": "cancelled", "CurrentSetSkipped": "skipped"}


def _count(job: Job, outcome: str) -> None:
    job.bench.metrics.task_attempts.labels(kind=str(job.claim.kind), outcome=outcome).inc()


def bind_context(claim: Claim, workspace: str, executor_id: str) -> None:
    """Binds what every log line of this attempt carries."""
    structlog.contextvars.clear_contextvars()
    trace = (claim.traceparent or "").split("-")
    structlog.contextvars.bind_contextvars(
        request_id=claim.request_id,
        trace_id=trace[1] if len(trace) == 4 else None,
        workspace_id=workspace,
        task_id=_typed(claim.task_id),
        fence=claim.fence,
        executor_id=executor_id,
        idempotency_key=claim.idempotency_key,
    )


def _typed(task_id: UUID) -> str:
    return format_id(TASK, task_id)
