"""A proven clone: stamp, clone, stamp, compare. Shared by snapshot_create and current_set."""

import time
from typing import Final

from msgspec import Struct

from wvs.domain.errors import ErrorCode
from wvs.domain.values import CloneReport
from wvs.engines.base import Cancel, CloneProgress, CloneResult, OnProgress, Stamp, Totals
from wvs.engines.errors import EngineError
from wvs.executor.freeze_driver import Freeze
from wvs.executor.workbench import Job
from wvs.failpoints import failpoint

MEASURE_S: Final = 5.0
"""The longest walk to count files for the event of an engine that clones without looking at them."""


class ProvenClone(Struct, frozen=True):
    """A finished clone with the two equal stamps of its source."""

    result: CloneResult
    before: Stamp
    after: Stamp


async def clone_proven(job: Job, source: str, point: str) -> ProvenClone:
    """Clones the tree `source` into the job's intended tree; raises `EngineError`, TORN_CLONE among others."""
    volume, engine = job.bench.volume, job.bench.volume.engine
    job.watch.phase("stamping")
    before = await job.bench.run(volume.stamp, job.workspace, source, job.cancel)
    failpoint(f"{point}.stamped")
    job.watch.phase("cloning")
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
    def on_progress(progress: CloneProgress) -> None:
        job.watch.on_progress(progress)
        failpoint(point)

    return on_progress


def _count(job: Job, engine: str, result: CloneResult) -> None:
    metrics = job.bench.metrics
    metrics.clone_duration_seconds.labels(engine=engine, kind=str(job.claim.kind)).observe(result.seconds)
    metrics.clone_bytes.inc(result.bytes or 0)
    metrics.clone_files.inc(result.files or 0)


async def counted_by_walk(job: Job, tree: str) -> Totals | None:
    """The size of a tree that nobody writes to, where the engine does not tell it: not to be called within a freeze.

    None where the engine tells, and for a tree so large that the walk would hold up the workspace's other tasks.
    """
    volume = job.bench.volume
    if volume.engine.counts_files:
        return None
    job.watch.phase("counting")
    try:
        return await job.bench.run(volume.measure, job.workspace, tree, Cancel(MEASURE_S))
    except EngineError as error:
        if error.code is not ErrorCode.DEADLINE_EXCEEDED:
            raise
        return None


def report_of(
    job: Job, clone: ProvenClone, freeze: Freeze, started: float, counted: Totals | None = None
) -> CloneReport:
    """What the event says of the clone; `started` is the attempt's `time.monotonic()`, `counted` of a walk."""
    counted = counted or clone.before.totals
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
