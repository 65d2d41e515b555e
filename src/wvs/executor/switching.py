"""The switch: any executor brings the live tree that Postgres names to the workspace's one path (docs/adr/0043)."""

import asyncio
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.outcomes import changes_nothing
from wvs.engines.errors import EngineError
from wvs.engines.paths import CURRENT, LIVE, SWITCH, TREES, workspace_path
from wvs.engines.volume.names import is_tree_name
from wvs.engines.volume.switching import Held, Stranger
from wvs.executor.workbench import Job, Workbench
from wvs.failpoints import failpoint
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.queries import sql
from wvs.readmodel.tree_states import OBSOLETE, TreeState
from wvs.telemetry.failures import survived

_MOST_ROUNDS: Final = 20
_MISSED_ROUNDS: Final = 3
_PAUSE_S: Final = 0.02
_FOLLOWS: Final = sql("link_moved")
_REPLACED: Final = sql("path_replaced")
_NOTED: Final = sql("path_noted")
_FORGOTTEN: Final = sql("orphaned_links")
_NAMED: Final = sql("trees_named")

log = structlog.get_logger(__name__)


class _Wanted(Struct, frozen=True):
    """The live tree that Postgres names, and its epoch."""

    tree: str
    epoch: int


async def bring_live(bench: Workbench, workspace_id: UUID) -> bool:
    """Brings the live tree that Postgres names to the workspace's path; True if it moved anything.

    No fence can guard a rename, and its process may have been stopped for an hour just before it. Therefore the
    executor takes the tree into a slot of its own, asks Postgres again, and only then exchanges its slot with the live
    directory. It returns once all slots are empty, the path shows the tree, and Postgres named it before that look:
    then no late hand can exchange any more, because its slot was taken from it.

    Raises `EngineError`: TREE_MISSING if the tree is nowhere on the volume.
    """
    name = format_id(WORKSPACE, workspace_id)
    changed = False
    missed = 0
    for _ in range(_MOST_ROUNDS):
        wanted = await _wanted(bench, workspace_id)
        if wanted is None:
            return changed
        if await bench.run(bench.volume.standing, name) == wanted.tree:
            await bench.run(bench.volume.sync_path, name)  # another hand may have brought it, and not synced it yet
            failpoint("switch.seen")
            if await bench.path.pool.fetch(_FOLLOWS, workspace_id, wanted.epoch):
                bench.hint_sessions()
            return changed
        failpoint("switch.asked")
        moved = await _round(bench, workspace_id, name, wanted)
        changed = changed or bool(moved)
        missed = missed + 1 if moved is None else 0
        if missed == _MISSED_ROUNDS:
            raise await _missing(bench, name, wanted.tree)
        if not moved:
            await asyncio.sleep(_PAUSE_S)  # another hand is about to end the switch
    raise EngineError(
        ErrorCode.VOLUME_UNAVAILABLE,
        f"{bench.volume.live_path(name)} is still not the live tree of Postgres after {_MOST_ROUNDS} rounds.",
    )


async def _round(bench: Workbench, workspace_id: UUID, name: str, wanted: _Wanted) -> bool | None:
    """Empties every slot, and exchanges the wanted tree with the live one; True if it moved anything.

    None if the wanted tree was in none of its places.
    """
    volume = bench.volume
    mine: Held | None = None
    moved = False
    for slot in await bench.run(volume.slots, name):
        held = await bench.run(volume.take, name, SWITCH, slot)
        failpoint("switch.cleared")
        moved = moved or held is not None
        if held is not None and held.tree == wanted.tree:
            mine = held
        elif held is not None:
            await _put_away(bench, workspace_id, name, held)
    is_nowhere = False
    if mine is None and await bench.run(volume.live_tree, name) != wanted.tree:
        mine = await bench.run(volume.take, name, TREES, wanted.tree)
        failpoint("switch.taken")
        is_nowhere = mine is None and not moved
    if mine is not None:
        moved = True
        again = await _wanted(bench, workspace_id)
        failpoint("switch.asked_again")
        if again == wanted:
            out = await bench.run(volume.bring, name, mine.slot)
            failpoint("switch.exchanged")
            if out is not None:
                await _put_away(bench, workspace_id, name, out)
    moved = await _clear_link(bench, name) or moved
    return None if is_nowhere else moved


async def _put_away(bench: Workbench, workspace_id: UUID, name: str, held: Held) -> None:
    """Moves what came out of the path to the trash if the log calls it obsolete, else to quarantine.

    The live tree stays in its slot: the next round brings it.
    """
    states = {} if held.tree is None else await states_of(bench, workspace_id, [held.tree])
    state = states.get(held.tree or "")
    wanted = await _wanted(bench, workspace_id)
    if wanted is not None and held.tree == wanted.tree:
        return
    place = await bench.run(bench.volume.put_away, name, held, obsolete=state in OBSOLETE)
    failpoint("switch.put_away")
    if place is not None:
        log.warning("path_stranger_quarantined", workspace_id=name, place=place)


async def _clear_link(bench: Workbench, name: str) -> bool:
    standing = await bench.run(bench.volume.standing, name)
    if isinstance(standing, Stranger) and standing.place == CURRENT:
        await clear_path(bench, name)
    return await bench.run(bench.volume.make_link, name)


async def clear_path(bench: Workbench, name: str) -> list[str]:
    """Moves to quarantine what stands in the place of the link or of the live directory; returns where it is now.

    Call `bring_live` afterwards: the executor may have been stopped in between.
    """
    places = await bench.run(bench.volume.clear_path, name)
    for place in places:
        log.warning("path_stranger_quarantined", workspace_id=name, place=place)
    return places


async def note_stranger(bench: Workbench, workspace_id: UUID, stranger: Stranger) -> None:
    """Notes for the API what stands at the workspace's path. `bring_live` clears the note once the path is right."""
    await bench.path.pool.execute(_REPLACED, workspace_id, stranger.kind)


async def path_replaced_by(job: Job) -> str | None:
    """What stands at the workspace's path instead of the link, if the job's task would change nothing there.

    Where the executor cannot look, or the last holder of the task hung until its deadline, the last note of an executor
    counts: a look at a volume that hangs never ends.
    """
    workspace = await job.bench.path.load(job.claim.workspace_id)
    task = None if workspace is None else workspace.tasks.get(job.claim.task_id)
    if workspace is None or task is None or not changes_nothing(workspace, task):
        return None
    try:
        if not job.claim.overdue:
            standing = await job.bench.run(job.bench.volume.standing, job.workspace)
            if not isinstance(standing, Stranger):
                return None
            await note_stranger(job.bench, job.claim.workspace_id, standing)
    except EngineError as error:
        survived(job.bench.metrics, "switch", error, "path_not_seen", code=str(error.code))
    noted: str | None = await job.bench.path.pool.fetchval(_NOTED, job.claim.workspace_id)
    return noted


async def require_path(job: Job, tree: str) -> None:
    """Raises PATH_REPLACED unless the workspace's path shows the live tree `tree`.

    Otherwise a snapshot would hold other files than a person sees at the path. A switch that has not ended is ended
    first: that loses nothing.
    """
    volume, standing = job.bench.volume, await job.bench.run(job.bench.volume.standing, job.workspace)
    if standing == tree:
        return
    if isinstance(standing, Stranger):
        await note_stranger(job.bench, job.claim.workspace_id, standing)
        raise _replaced(f"{workspace_path(volume.path, job.workspace)}/{standing.place}", standing, tree)
    await bring_live(job.bench, job.claim.workspace_id)
    if await job.bench.run(volume.standing, job.workspace) != tree:
        path = volume.live_path(job.workspace)
        raise EngineError(ErrorCode.PATH_REPLACED, f"{path} does not stay the live tree {tree}.", retryable=True)


def _replaced(path: str, stranger: Stranger, tree: str) -> EngineError:
    if stranger.place == LIVE:
        return EngineError(
            ErrorCode.PATH_REPLACED,
            f"{path} is {stranger.kind}, not the directory of the live tree {tree}.",
            f"If it is the live tree and only the file was removed, write {tree} into {path}/name again. Otherwise run "
            "wvs volume check --repair: it moves what is there to quarantine, and brings the live tree back if it is "
            "still on the volume. wvsctl current set … --reset recreates it from a snapshot.",
            retryable=False,
        )
    return EngineError(
        ErrorCode.PATH_REPLACED,
        f"{path} is {stranger.kind}, not the link to the live tree.",
        f"Copy what you need from the path into {path.removesuffix(CURRENT)}{LIVE}/root. Then run wvs volume check "
        "--repair: it moves what is at the path to quarantine and makes the link again. wvsctl current set does so, "
        "too, and replaces the live tree.",
        retryable=False,
    )


async def try_to_bring_live(bench: Workbench, workspace_id: UUID) -> bool:
    """As `bring_live`, but logs a failure: the task has succeeded already, and the reaper tries again."""
    try:
        changed = await bring_live(bench, workspace_id)
    except EngineError as error:
        survived(bench.metrics, "switch", error, "live_tree_not_brought", code=str(error.code))
        return False
    bench.hint()
    return changed


async def bring_pending_trees(bench: Workbench) -> list[UUID]:
    """Ends the switches whose executor ended after the event; one that fails does not delay the others.

    Returns the workspaces that have another tree at their path now: the old one is in the trash.
    """
    changed: list[UUID] = []
    for row in await bench.path.pool.fetch(_FORGOTTEN):
        with structlog.contextvars.bound_contextvars(workspace_id=format_id(WORKSPACE, row["workspace_id"])):
            try:
                if await try_to_bring_live(bench, row["workspace_id"]):
                    changed.append(row["workspace_id"])
            except CONNECTION_LOST:
                raise
            except Exception as error:  # noqa: BLE001 - one switch that cannot be ended delays no other
                survived(bench.metrics, "switch", error, "live_tree_not_brought", crashed=True)
    return changed


async def states_of(bench: Workbench, workspace_id: UUID, names: list[str]) -> dict[str, TreeState]:
    """The states of those of the trees `names` that the log knows."""
    async with bench.path.pool.acquire() as connection:
        rows = await connection.fetch(_NAMED, workspace_id, [n for n in names if is_tree_name(n)])
    return {row["name"]: TreeState(row["state"]) for row in rows}


async def _wanted(bench: Workbench, workspace_id: UUID) -> _Wanted | None:
    workspace = await bench.path.load(workspace_id)
    if workspace is None or workspace.live_tree is None:
        return None
    return _Wanted(workspace.live_tree, workspace.epoch)


async def _missing(bench: Workbench, name: str, tree: str) -> EngineError:
    live = f"{workspace_path(bench.volume.path, name)}/{LIVE}"
    if not await bench.run(bench.volume.has_workspace, name):
        detail = f"The directory {workspace_path(bench.volume.path, name)} is missing."
    elif (shown := await bench.run(bench.volume.live_tree, name)) is not None:
        return EngineError(
            ErrorCode.TREE_MISSING,
            f"{live} is the tree {shown}, by the file {live}/name. The live tree {tree} is nowhere on the volume.",
            f"If it is the live tree and only the file was changed, write {tree} into {live}/name again. Otherwise "
            "recreate it from a snapshot: wvsctl current set WORKSPACE SNAPSHOT --reset.",
            retryable=False,
        )
    else:
        detail = f"The live tree {tree} of {name} is nowhere on the volume {bench.volume.path}."
    return EngineError(
        ErrorCode.TREE_MISSING,
        detail,
        f"If somebody moved it, move it back to {live}. Otherwise recreate it from a snapshot: "
        "wvsctl current set WORKSPACE SNAPSHOT --reset.",
        retryable=False,
    )
