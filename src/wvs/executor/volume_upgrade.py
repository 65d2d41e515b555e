"""`wvs volume upgrade`: brings a volume of the former layout over. The log says which tree of a workspace is live."""

from typing import Final
from uuid import UUID

from msgspec import Struct

from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import WorkspaceState
from wvs.engines.volume.upgrade import OldVolume
from wvs.executor.volume_binding import bind, require_no_executors
from wvs.executor.volume_sweep import all_workspaces, check_log
from wvs.executor.workbench import Workbench
from wvs.failpoints import failpoint
from wvs.postgres.pool import acquire
from wvs.postgres.queries import sql

_SESSIONS: Final = sql("active_sessions")
_WORKING: Final = "They work with the volume's old layout. The upgrade has not ended; what it has done stays."


class Upgraded(Struct, frozen=True):
    """What an upgrade did: `workspaces` is None if there was nothing to do; `said` is what a person should know."""

    workspaces: int | None
    said: list[str]


async def upgrade_volume(bench: Workbench, volume: OldVolume) -> Upgraded:
    """Brings every workspace over, then the volume's identity. Re-entrant: a run that was killed is repeated.

    Raises `ExecutorsConnectedError` while an executor is connected, `WrongVolumeError` and `RestoredDatabaseError` if
    the log is not this volume's, and `EngineError`. What stands in the way in one workspace is said, and does not stop
    the others.
    """
    if await bench.run(volume.is_up_to_date):
        return Upgraded(None, [])
    pool = bench.path.pool
    await require_no_executors(pool, _WORKING)
    await bind(pool, volume)
    with volume.locked():
        if await bench.run(volume.is_up_to_date):
            return Upgraded(None, [])
        await check_log(bench)
        said = await _agents(bench)
        failpoint("upgrade.started")
        workspaces = await all_workspaces(bench)
        for workspace_id in workspaces:
            # An executor of the former release may be started at any time: the volume does not refuse it yet.
            await require_no_executors(pool, _WORKING)
            said += await _upgrade_workspace(bench, volume, workspace_id)
            failpoint("upgrade.workspace_done")
        await require_no_executors(pool, _WORKING)
        await bench.run(volume.finish_upgrade)
        failpoint("upgrade.finished")
    return Upgraded(len(workspaces), said)


async def _upgrade_workspace(bench: Workbench, volume: OldVolume, workspace_id: UUID) -> list[str]:
    name = format_id(WORKSPACE, workspace_id)
    workspace = await bench.path.load(workspace_id)
    live = None if workspace is None else workspace.live_tree
    if await bench.run(volume.has_workspace, name):
        return await bench.run(volume.upgrade_workspace, name, live)
    if workspace is not None and workspace.state is WorkspaceState.DISABLED:
        return []
    return [f"the directory of {name} is missing, and with it its live tree {live}"]


async def _agents(bench: Workbench) -> list[str]:
    async with acquire(bench.path.pool) as connection:
        sessions: int = await connection.fetchval(_SESSIONS)
    if not sessions:
        return []
    sentence = (
        f"{sessions} sessions of agents are open (wvsctl session list WORKSPACE). An agent that still runs keeps its "
        "files, but the path under trees/ by which it knows them is gone: stop it and start it again"
    )
    return [sentence]
