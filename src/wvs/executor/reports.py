"""An executor's reports on a task: committed under its fence, as part of the request that created the task."""

from wvs.application.write_path import Committed, Origin
from wvs.domain.commands import Command
from wvs.domain.errors import ErrorCode, Refused
from wvs.executor.workbench import Job


async def execute(job: Job, command: Command) -> Committed:
    """Commits an outcome under the claim's fence. Raises as the write path does; `Refused(LEASE_LOST)` if it is stale.

    The events carry the request's id, so that one grep follows the task from the API to here.
    """
    claim = job.claim
    origin = Origin(
        actor=f"executor:{job.bench.executor_id}",
        request_id=claim.request_id or "",
        idempotency_key=claim.idempotency_key,
        traceparent=claim.traceparent,
        causation=str(claim.task_id),
    )
    try:
        return await job.bench.path.execute(
            claim.workspace_id, command, at=job.watch.since_claim.until, origin=origin, hold=job.hold
        )
    except Refused as refused:
        if refused.code is ErrorCode.LEASE_LOST:
            job.bench.metrics.fence_rejections.inc()
        raise
