"""A proven clone: stamp, clone, stamp, compare. Shared by snapshot_create and current_set."""

import time

from msgspec import Struct

from wvs.domain.errors import ErrorCode
from wvs.domain.values import CloneReport
from wvs.engines.base import CloneResult, OnProgress, Progress, Stamp, Totals
from wvs.engines.errors import EngineError
from wvs.executor.freeze import Freeze
from wvs.executor.workbench import Job
from wvs.failpoints import failpoint


class ProvenClone(Struct, frozen=True):
    """A finished clone with the two equal stamps of its source."""

    result: CloneResult
    before: Stamp
    after: Stamp


async def clone_proven(job: Job, source: str, point: str) -> ProvenClone:
    """Clones the tree `source` into the job's intended tree; raises `EngineError`, TORN_CLONE among others."""
    volume, engine = job.bench.volume, job.bench.volume.engine
    job.guard.phase("stamping")
    before = await job.bench.run(volume.stamp, job.workspace, source, job.cancel)
    failpoint(f"{point}.stamped")
    job.guard.phase("cloning")
    result = await job.bench.run(
        volume.clone,
        job.workspace,
        source,
        job.tree,
        cancel=job.cancel,
        on_progress=_in_progress(job, f"{point}.cloning"),
        totals=before.totals,
    )
    failpoint(f"{point}.cloned")
    after = await job.bench.run(volume.stamp, job.workspace, source, job.cancel)
    torn = engine.torn(before, after, result.stamp)
    if torn is not None:
        raise EngineError(
            ErrorCode.TORN_CLONE,
            f"The clone was discarded: {torn}.",
            "Something outside a registered session writes the live tree; run it under wvsctl agent run.",
            retryable=True,
        )
    failpoint(f"{point}.proven")
    _count(job, engine.name, result)
    return ProvenClone(result, before, after)


def _in_progress(job: Job, point: str) -> OnProgress:
    def on_progress(progress: Progress) -> None:
        job.guard.on_progress(progress)
        failpoint(point)

    return on_progress


def _count(job: Job, engine: str, result: CloneResult) -> None:
    metrics = job.bench.metrics
    metrics.clone_duration_seconds.labels(engine=engine, kind=str(job.claim.kind)).observe(result.seconds)
    metrics.clone_bytes.inc(result.bytes or 0)
    metrics.clone_files.inc(result.files or 0)


def report_of(job: Job, clone: ProvenClone, freeze: Freeze, started: float) -> CloneReport:
    """What the event says of the clone; `started` is the attempt's `time.monotonic()`."""
    counted: Totals | None = clone.before.totals
    result = clone.result
    return CloneReport(
        engine=job.bench.volume.engine.name,
        files=result.files if result.files is not None else counted and counted.files,
        bytes=result.bytes if result.bytes is not None else counted and counted.bytes,
        sockets=result.sockets,
        freeze_s=round(freeze.seconds, 6),
        clone_s=round(result.seconds, 6),
        total_s=round(time.monotonic() - started, 6),
        notes=tuple(f"{note.what}: {note.count}, first {note.example}" for note in result.notes),
    )
