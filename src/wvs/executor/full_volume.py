"""What frees space on a full volume: the hint of a task that failed with VOLUME_FULL."""

import heapq
from typing import Final

from wvs.domain.ids import SNAPSHOT, format_id
from wvs.domain.states import SnapshotState
from wvs.domain.workspace import Snapshot, Workspace
from wvs.engines.errors import EngineError
from wvs.executor.workbench import Job

_SHOWN: Final = 3


async def hint_on_full_volume(job: Job, workspace: Workspace, error: EngineError) -> str:
    """Which snapshots of the workspace can be dropped, what else frees space, and the error's own hint."""
    ready = [each for each in workspace.snapshots.values() if each.state is SnapshotState.READY]
    parts = [_droppable(job.workspace, workspace, ready)]
    if ready and not job.bench.volume.engine.needs_space:
        parts.append(
            "setting the live tree back needs no room here and frees what was written since: "
            f"wvsctl current set {job.workspace} SNAPSHOT --reset"
        )
    waiting = await _in_the_trash(job)
    if waiting:
        parts.append(f"{waiting} in the trash can be removed: wvs volume check --repair")
    parts.append(error.hint)
    return ". ".join(parts)


def _droppable(name: str, workspace: Workspace, ready: list[Snapshot]) -> str:
    free = [each.id for each in ready if each.id != workspace.current and not workspace.blockers(each.id)]
    if not free:
        return f"no snapshot of {name} can be dropped now: look at those of other workspaces"
    oldest = [format_id(SNAPSHOT, snapshot_id) for snapshot_id in heapq.nsmallest(_SHOWN, free)]
    more = f" and {len(free) - len(oldest)} more" if len(free) > len(oldest) else ""
    return f"these snapshots of {name} can be dropped, the oldest first: {', '.join(oldest)}{more}"


async def _in_the_trash(job: Job) -> str:
    try:
        names = await job.bench.run(job.bench.volume.trash, job.workspace)
    except EngineError:
        return ""  # the hint is only shorter: the task's own error is reported in any case
    return "" if not names else "a tree" if len(names) == 1 else f"{len(names)} trees"
