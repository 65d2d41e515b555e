"""The stable link `current`: any executor makes it follow the live tree that Postgres names."""

from typing import Final
from uuid import UUID

import structlog

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.errors import EngineError
from wvs.engines.paths import current_path
from wvs.engines.volume.layout import Stranger
from wvs.executor.workbench import Job, Workbench
from wvs.failpoints import failpoint
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.queries import sql
from wvs.telemetry.failures import survived

_MOST_ROUNDS: Final = 20
_FOLLOWS: Final = sql("link_moved")
_REPLACED: Final = sql("path_replaced")
_FORGOTTEN: Final = sql("orphaned_links")

log = structlog.get_logger(__name__)


async def move_link(bench: Workbench, workspace_id: UUID) -> bool:
    """Makes the link point to the live tree that Postgres names; True if it moved the link.

    No fence can guard a rename, and its process may have been stopped for an hour just before it. Therefore the
    executor asks Postgres again after each rename, until Postgres names the tree that the link has. So the last process
    to move the link is one that read the newest name afterwards.
    """
    name = format_id(WORKSPACE, workspace_id)
    changed = False
    for _ in range(_MOST_ROUNDS):
        workspace = await bench.path.load(workspace_id)
        wanted = None if workspace is None else workspace.live_tree
        if workspace is None or wanted is None:
            return changed
        if await bench.run(bench.volume.linked_tree, name) == wanted:
            await bench.path.pool.execute(_FOLLOWS, workspace_id, workspace.epoch)
            return changed
        failpoint("link.asked")
        await set_link(bench, name, wanted)
        failpoint("link.moved")
        changed = True
    raise EngineError(
        ErrorCode.VOLUME_UNAVAILABLE, f"The link of {name} still differs from Postgres after {_MOST_ROUNDS} moves."
    )


async def set_link(bench: Workbench, workspace: str, tree: str) -> str | None:
    """Makes the link point to `tree`. Returns the place in quarantine of what stood there instead of a link, if any."""
    place = await bench.run(bench.volume.set_link, workspace, tree)
    if place is not None:
        log.warning("path_stranger_quarantined", workspace_id=workspace, place=place)
    return place


async def note_stranger(bench: Workbench, workspace_id: UUID, stranger: Stranger) -> None:
    """Notes for the API what stands at the workspace's path. `move_link` clears the note once the link is there."""
    await bench.path.pool.execute(_REPLACED, workspace_id, stranger.kind)


async def require_path(job: Job, tree: str) -> None:
    """Raises PATH_REPLACED unless the workspace's path shows the live tree `tree`.

    Otherwise a snapshot would hold other files than a person sees at the path. A link that is missing or late is made
    right first: that loses nothing.
    """
    volume, standing = job.bench.volume, await job.bench.run(job.bench.volume.standing, job.workspace)
    if standing == tree:
        return
    path = current_path(volume.path, job.workspace)
    if isinstance(standing, Stranger):
        await note_stranger(job.bench, job.claim.workspace_id, standing)
        raise EngineError(
            ErrorCode.PATH_REPLACED,
            f"{path} is {standing.kind}, not the link to the live tree {volume.root_path(job.workspace, tree)}.",
            "Copy what you need from the path into that live tree. Then run wvs volume check --repair: it moves what "
            "is at the path to quarantine and makes the link again. wvsctl current set does so, too, and replaces the "
            "live tree.",
            retryable=False,
        )
    await move_link(job.bench, job.claim.workspace_id)
    if await job.bench.run(volume.linked_tree, job.workspace) != tree:
        raise EngineError(ErrorCode.PATH_REPLACED, f"{path} does not stay the link to the live tree.", retryable=True)


async def try_to_move_link(bench: Workbench, workspace_id: UUID) -> None:
    """As `move_link`, but logs a failure: the task has succeeded already, and the link stays pending for the reaper."""
    try:
        await move_link(bench, workspace_id)
    except EngineError as error:
        survived(bench.metrics, "link", error, "link_not_moved", code=str(error.code))
    else:
        bench.hint()


async def move_pending_links(bench: Workbench) -> None:
    """Moves the links whose executor ended between event and rename; one that fails does not delay the others."""
    for row in await bench.path.pool.fetch(_FORGOTTEN):
        with structlog.contextvars.bound_contextvars(workspace_id=format_id(WORKSPACE, row["workspace_id"])):
            try:
                await try_to_move_link(bench, row["workspace_id"])
            except CONNECTION_LOST:
                raise
            except Exception as error:  # noqa: BLE001 - one link that cannot be moved delays no other
                survived(bench.metrics, "link", error, "link_not_moved", crashed=True)
