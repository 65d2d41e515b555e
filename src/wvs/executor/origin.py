"""Where an executor's events come from: the request that asked for the task, carried out by this executor."""

from wvs.eventlog.write_path import Origin
from wvs.executor.workbench import Job


def origin_of(job: Job) -> Origin:
    """The metadata of what `job` commits; one grep for its request id follows the task from API to executor."""
    claim = job.claim
    return Origin(
        actor=f"executor:{job.bench.executor_id}",
        request_id=claim.request_id or "",
        idempotency_key=claim.idempotency_key,
        traceparent=claim.traceparent,
        causation=str(claim.task_id),
    )
