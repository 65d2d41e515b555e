"""The stable link `current`: derived from Postgres, repaired by any executor."""

from typing import Final
from uuid import UUID

import structlog

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.errors import EngineError
from wvs.executor.workbench import Workbench
from wvs.failpoints import failpoint
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.queries import sql
from wvs.telemetry.failures import survived

_MOST_ROUNDS: Final = 20
_FOLLOWS: Final = sql("link_follows")
_FORGOTTEN: Final = sql("links_forgotten")

log = structlog.get_logger(__name__)


async def move_link(bench: Workbench, workspace_id: UUID) -> bool:
    """Lets the link point to the live tree that Postgres names; True if it had to be changed.

    A rename cannot be fenced, and whoever does it may have been stopped for an hour just before. Therefore Postgres is
    asked again after each change, until it names the tree that the link has: the last one to write the link is also
    one that read the newest name after it.
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
        await bench.run(bench.volume.set_link, name, wanted)
        failpoint("link.moved")
        changed = True
    raise EngineError(ErrorCode.VOLUME_UNAVAILABLE, f"The link of {name} does not stay where it is put.")


async def try_to_move_link(bench: Workbench, workspace_id: UUID) -> None:
    """As `move_link`, but a link that cannot be moved is told and stays pending: its task ended well already."""
    try:
        await move_link(bench, workspace_id)
    except EngineError as error:
        survived(bench.metrics, "link", error, "link_not_moved", code=str(error.code))
    else:
        bench.hint()


async def move_pending_links(bench: Workbench) -> None:
    """Moves the links whose mover went away between the event and the rename; one that fails holds up no other."""
    for row in await bench.path.pool.fetch(_FORGOTTEN):
        with structlog.contextvars.bound_contextvars(workspace_id=format_id(WORKSPACE, row["workspace_id"])):
            try:
                await try_to_move_link(bench, row["workspace_id"])
            except CONNECTION_LOST:
                raise
            except Exception as error:  # noqa: BLE001 - one link that cannot be moved holds up no other
                survived(bench.metrics, "link", error, "link_not_moved", crashed=True)
