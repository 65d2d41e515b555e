"""The four operations. Each can crash at any step: the next attempt or the sweeper finishes or removes what is left.

Nothing on disk counts until an event names it (rule 7). The log intends a tree before its directory exists, and the
tree is durable before the event that commits it.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from msgspec import Struct

from wvs.background import background
from wvs.domain.commands import Command, FinishDrop, FinishInit, FinishSetCurrent, FinishSnapshot
from wvs.domain.errors import ErrorCode
from wvs.domain.states import TaskKind
from wvs.domain.workspace import Task, Workspace
from wvs.engines.base import TreeOwner
from wvs.engines.errors import EngineError
from wvs.engines.volume.switching import Stranger
from wvs.executor.bystanders import Found, refuse_bystanders, taken_away
from wvs.executor.cloning import clone_proven, counted_by_walk, report_of
from wvs.executor.freeze_driver import frozen
from wvs.executor.reports import execute
from wvs.executor.switching import bring_live, clear_path, require_path, try_to_bring_live
from wvs.executor.workbench import Job
from wvs.failpoints import failpoint


class Started(Struct, frozen=True):
    """A task and its workspace at the start of the attempt."""

    workspace: Workspace
    task: Task


class Leftover(Struct, frozen=True):
    """A tree that the operation made obsolete; the executor removes it once the lane is free."""

    tree: str


Operation = Callable[[Job, Started], Awaitable[Leftover | None]]


async def init_workspace(job: Job, _started: Started) -> None:
    """Makes the workspace's directories and an empty live tree."""
    volume, settings = job.bench.volume, job.bench.settings
    failpoint("init.started")
    await job.bench.run(volume.create_workspace, job.workspace)
    failpoint("init.workspace_made")
    await job.bench.run(volume.intend, job.workspace, job.tree)
    failpoint("init.tree_intended")
    owner = settings.live_owner
    ids = TreeOwner(-1, -1) if owner is None else TreeOwner(owner.uid, owner.gid)
    await job.bench.run(volume.create_root, job.workspace, job.tree, ids, settings.live_mode)
    failpoint("init.root_made")
    await job.bench.run(volume.admit_agents, job.workspace, job.tree)
    await job.bench.run(volume.sync, job.workspace, job.tree)
    failpoint("init.synced")
    job.watch.safe_point()
    await _commit(job, FinishInit(job.claim.task_id, job.claim.fence, job.tree, volume.engine.name))
    failpoint("init.committed")
    await try_to_bring_live(job.bench, job.claim.workspace_id)
    failpoint("init.switched")


async def create_snapshot(job: Job, started: Started) -> None:
    """Clones the live tree within a freeze; agents resume before the clone is made durable."""
    volume = job.bench.volume
    source = _live_tree(started.workspace)
    started_at = time.monotonic()
    failpoint("create.started")
    await require_path(job, source)
    await _require_root(job, source)
    await job.bench.run(volume.require_rights, job.workspace, source, job.cancel)
    await job.bench.run(volume.intend, job.workspace, job.tree)
    failpoint("create.tree_intended")
    live_root = volume.live_path(job.workspace)
    async with frozen(job, live_root if job.bench.settings.bystanders == "refuse" else None) as freeze:
        failpoint("create.frozen")
        # A store through a shared mapping changes a file's times only at its write-back (msync(2)). Stamps show such
        # stores only after a flush, and in a workspace without sessions no agent has flushed.
        await job.bench.run(volume.flush, job.workspace, source)
        clone = await clone_proven(job, source, "create")
        await require_path(job, source)
        await freeze.confirm(resume=True)
    failpoint("create.resumed")
    async with background(freeze.look_after(live_root)) as (looking,):
        await _sync(job, "create.syncing")
        found: Found = await looking
    refuse_bystanders(job, found.bystanders)
    failpoint("create.synced")
    await job.bench.run(volume.seal, job.workspace, job.tree)
    failpoint("create.sealed")
    certificate = freeze.certificate(clone.before, clone.after, volume.engine.name, found.bystanders)
    report = report_of(job, clone, freeze, started_at, await counted_by_walk(job, job.tree), found.notes)
    job.watch.safe_point()
    await _commit(job, FinishSnapshot(job.claim.task_id, job.claim.fence, job.tree, report, certificate))
    failpoint("create.committed")


async def set_current(job: Job, started: Started) -> Leftover | None:
    """Clones a snapshot into a new live tree. One event moves pointer, live tree and epoch; the path follows."""
    volume = job.bench.volume
    started_at = time.monotonic()
    failpoint("set.started")
    source = _source(started)
    await job.bench.run(volume.require_rights, job.workspace, source, job.cancel)
    await job.bench.run(volume.intend, job.workspace, job.tree)
    failpoint("set.tree_intended")
    counted = await counted_by_walk(job, source)
    async with frozen(job, volume.live_path(job.workspace)) as freeze:
        failpoint("set.frozen")
        clone = await clone_proven(job, source, "set")
        await _sync(job, "set.syncing")
        failpoint("set.synced")
        await job.bench.run(volume.admit_agents, job.workspace, job.tree)
        failpoint("set.opened")
        aside = await _clear_path(job, started.workspace.live_tree)
        await freeze.confirm(resume=False)
        found = freeze.found()
        refuse_bystanders(job, found.bystanders)
        certificate = freeze.certificate(clone.before, clone.after, volume.engine.name, found.bystanders)
        report = report_of(
            job, clone, freeze, started_at, counted, (*aside, *found.notes, *taken_away(found.bystanders))
        )
        job.watch.safe_point()
        with freeze.required():
            await _commit(job, FinishSetCurrent(job.claim.task_id, job.claim.fence, job.tree, report, certificate))
        failpoint("set.committed")
        await try_to_bring_live(job.bench, job.claim.workspace_id)
        failpoint("set.switched")
    failpoint("set.resumed")
    old = started.workspace.live_tree
    return None if old is None else Leftover(old)


async def drop_snapshot(job: Job, started: Started) -> None:
    """Removes the tree and syncs its parent, then commits the event (rule 4). The tree may already be in the trash."""
    volume = job.bench.volume
    failpoint("drop.started")
    tree = None if started.task.snapshot_id is None else started.workspace.snapshots[started.task.snapshot_id].tree
    if tree is not None:
        job.cancel.check()
        job.watch.touch()
        job.watch.set_phase("removing")
        await job.bench.run(volume.retire, job.workspace, tree)
        failpoint("drop.retired")
        await _purge(job, tree)
        failpoint("drop.purged")
    await _commit(job, FinishDrop(job.claim.task_id, job.claim.fence))
    failpoint("drop.committed")


OPERATIONS: Final[Mapping[TaskKind, Operation]] = {
    TaskKind.WORKSPACE_INIT: init_workspace,
    TaskKind.SNAPSHOT_CREATE: create_snapshot,
    TaskKind.CURRENT_SET: set_current,
    TaskKind.SNAPSHOT_DROP: drop_snapshot,
}


async def _sync(job: Job, point: str) -> None:
    def sync() -> None:
        failpoint(point)
        job.bench.volume.sync(job.workspace, job.tree)

    job.watch.set_phase("syncing")
    await job.bench.run(sync)


async def _purge(job: Job, tree: str) -> None:
    def purge() -> None:
        failpoint("drop.removing")
        job.bench.volume.purge(job.workspace, tree, job.cancel)

    await job.bench.run(purge)


async def _commit(job: Job, command: Command) -> None:
    """Commits a result under the fence; commits nothing if the claim was lost meanwhile."""
    if job.watch.lost:
        job.cancel.check()
    await execute(job, command)


async def _clear_path(job: Job, live_tree: str | None) -> tuple[str, ...]:
    """Moves to quarantine what stands at the workspace's path and is not of WVS; returns notes about it.

    Before the event: once the pointer has moved, the path has to show the new live tree.
    """
    standing = await job.bench.run(job.bench.volume.standing, job.workspace)
    if live_tree is None or not isinstance(standing, Stranger):
        return ()
    places = await clear_path(job.bench, job.workspace)
    try:
        await bring_live(job.bench, job.claim.workspace_id)
    except EngineError as error:
        if error.code is not ErrorCode.TREE_MISSING:
            raise  # without the old live tree the path stays empty until the new one is there
    return tuple(f"the workspace's path was {standing.kind}, moved to {place}" for place in places)


def _live_tree(workspace: Workspace) -> str:
    if workspace.live_tree is None:
        raise EngineError(ErrorCode.TREE_MISSING, "The workspace has no live tree.", retryable=False)
    return workspace.live_tree


async def _require_root(job: Job, tree: str) -> None:
    """Raises `EngineError`, with what helps, before agents are frozen for a live tree that cannot be cloned."""
    kind = await job.bench.run(job.bench.volume.kind_of_root, job.workspace, tree)
    path = job.bench.volume.live_path(job.workspace)
    if kind is None:
        raise EngineError(
            ErrorCode.TREE_MISSING,
            f"{path}, the root of the live tree {tree}, is missing.",
            "Recreate it from a snapshot: wvsctl current set WORKSPACE SNAPSHOT --reset.",
            retryable=False,
        )
    if kind != "a directory":
        raise EngineError(
            ErrorCode.PATH_REPLACED,
            f"{path} is {kind}, not a directory: somebody replaced it.",
            f"Put a directory with the content into its place. Or recreate the live tree {tree} from a snapshot: "
            "wvsctl current set WORKSPACE SNAPSHOT --reset.",
            retryable=False,
        )


def _source(started: Started) -> str:
    snapshot_id = started.task.snapshot_id
    tree = None if snapshot_id is None else started.workspace.snapshots[snapshot_id].tree
    if tree is None:
        raise EngineError(ErrorCode.TREE_MISSING, "The snapshot has no tree.", retryable=False)
    return tree
