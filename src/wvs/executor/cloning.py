"""A proven clone, for snapshot_create and current_set: stamp, clone, stamp, compare."""

import time
from typing import Final

from msgspec import Struct

from wvs.domain.errors import ErrorCode
from wvs.domain.states import TaskKind
from wvs.domain.values import CloneReport
from wvs.engines.base import Cancel, CloneNote, CloneProgress, CloneResult, OnProgress, Stamp, Totals
from wvs.engines.errors import EngineError, UnreadableError
from wvs.executor.freeze_driver import Freeze
from wvs.executor.workbench import Job
from wvs.failpoints import failpoint

MEASURE_S: Final = 5.0
"""The longest walk, in seconds, to count files for an engine whose stamps and clones do not count them."""


class ProvenClone(Struct, frozen=True):
    """A finished clone with the two equal stamps of its source."""

    result: CloneResult
    before: Stamp
    after: Stamp


async def clone_proven(job: Job, source: str, point: str) -> ProvenClone:
    """Clones the tree `source` into the job's intended tree; raises `EngineError`: TORN_CLONE if the source changed."""
    volume, engine = job.bench.volume, job.bench.volume.engine
    job.watch.set_phase("stamping")
    before = await job.bench.run(volume.stamp, job.workspace, source, job.cancel)
    failpoint(f"{point}.stamped")
    job.watch.set_phase("cloning")
    result = await job.bench.run(
        volume.clone,
        job.workspace,
        source,
        job.tree,
        cancel=job.cancel,
        on_progress=_in_progress(job, f"{point}.cloning"),
        totals=before.totals,
        makes_room=job.claim.kind is TaskKind.CURRENT_SET,
    )
    failpoint(f"{point}.cloned")
    after = await job.bench.run(volume.stamp, job.workspace, source, job.cancel)
    torn = engine.torn(before, after, result.stamp)
    if torn is not None:
        raise EngineError(
            ErrorCode.TORN_CLONE,
            f"The clone was discarded: {torn}.",
            "A process outside every registered session writes to the live tree; run it under wvsctl agent run.",
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
    """The size of a tree that no process writes to, by a walk; not to be called within a freeze.

    None if the engine counts files itself, if the tree is so large that the walk would delay the workspace's other
    tasks, or if the service may not read a directory.
    """
    volume = job.bench.volume
    if volume.engine.counts_files:
        return None
    job.watch.set_phase("counting")
    try:
        return await job.bench.run(volume.measure, job.workspace, tree, Cancel(MEASURE_S))
    except UnreadableError:
        return None
    except EngineError as error:
        if error.code is not ErrorCode.DEADLINE_EXCEEDED:
            raise
        return None


def report_of(
    job: Job,
    clone: ProvenClone,
    freeze: Freeze,
    started: float,
    counted: Totals | None = None,
    notes: tuple[str, ...] = (),
) -> CloneReport:
    """The clone's report for the event, with further `notes`.

    `started`: `time.monotonic()` at the attempt's start; `counted`: by a walk.
    """
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
        notes=(*notes, *map(_shown, result.notes)),
    )


def _shown(note: CloneNote) -> str:
    return f"{note.what}: {note.count}, first {', '.join((note.example, *note.more))}"
