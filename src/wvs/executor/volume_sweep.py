"""Sweeps the whole volume periodically: one sweeper at a time, and none while the database may be the wrong one."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import structlog

from wvs.application.write_path import OutcomeUnknownError
from wvs.background import background
from wvs.domain.errors import Refused
from wvs.domain.ids import WORKSPACE, format_id, parse_id
from wvs.engines.errors import EngineError
from wvs.engines.volume.identity import LogPosition
from wvs.engines.volume.switching import Stranger
from wvs.eventlog.reading.follower import complete_until, log_epoch
from wvs.executor.disks import DiskWatch
from wvs.executor.volume_binding import WrongVolumeError, check_volume
from wvs.executor.volume_brake import brake_for, is_brake_held, keep_brake
from wvs.executor.workbench import Workbench
from wvs.executor.workspace_sweep import Action, Finding, look, repair_path, report, settle, tidy_workspace
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.locks import SWEEPER
from wvs.postgres.pool import Connection, Pool, connect
from wvs.postgres.queries import sql
from wvs.telemetry.failures import survived

SWEEP_EVERY_S: Final = 60.0
LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks at the log's position and at the volume's free space."""
SETTLE_S: Final = 2.0
"""Seconds between the two looks of a sweep: an executor needs less from an event to the directory that it is about."""

_BRAKED: Final = (Action.LOST, Action.QUARANTINED)
_PAGE: Final = 1000
_LOCK: Final = sql("try_session_lock")
_END_HANGING: Final = sql("end_hanging_sweeper")
_PATHS_NOTED: Final = sql("paths_noted")
_PATHS_RESTORED: Final = sql("paths_restored")
_LAST_EVENT: Final = sql("log_last_event")
_HASH_AT: Final = sql("log_hash_at")
_WITH_TREES: Final = sql("swept_workspaces")
_FAILURES: Final = (EngineError, Refused, OutcomeUnknownError, *CONNECTION_LOST, asyncpg.PostgresError)

log = structlog.get_logger(__name__)


class RestoredDatabaseError(Exception):
    """The volume has seen events that Postgres does not have: a sweep would remove trees that those events made."""


async def check_log(bench: Workbench) -> None:
    """Raises `WrongVolumeError` if the log has another volume, and `RestoredDatabaseError` if it is an older copy.

    Every sweep checks this first: the trees of another log would all be unknown.
    """
    await check_volume(bench.path.pool, bench.volume)
    await _check_not_restored(bench)


async def _check_not_restored(bench: Workbench) -> None:
    """Raises `RestoredDatabaseError` if the volume has seen a later or another log than this database has.

    The position alone does not suffice: a restored database soon gives the positions after its backup to other events.
    An operator raises the epoch to make the volume follow this log (the runbook says when).
    """
    seen = await bench.run(bench.volume.seen_event)
    if seen is None:
        return
    position, event_hash = seen
    async with bench.path.pool.acquire() as connection:
        epoch = await log_epoch(connection)
        stored: str | None = await connection.fetchval(_HASH_AT, position.position)
    if epoch > position.epoch or (epoch == position.epoch and stored is not None and stored == (event_hash or stored)):
        return
    raise RestoredDatabaseError(
        f"The volume has seen the event at position {position.epoch}:{position.position}, which this database (epoch "
        f"{epoch}) does not have: it was restored from an older copy, or is another one. Nothing is swept. "
        "Read: wvs runbook restored-database"
    )


async def record_seen(bench: Workbench) -> None:
    """Records the log's position on the volume. Raises as `check_log` does, and then records nothing."""
    await check_log(bench)
    async with bench.path.pool.acquire() as connection:
        epoch = await log_epoch(connection)
        row = await connection.fetchrow(_LAST_EVENT, await complete_until(connection))
    if row is not None and await bench.run(bench.volume.seen) != LogPosition(epoch, row["notification_id"]):
        await bench.run(bench.volume.record_seen, LogPosition(epoch, row["notification_id"]), row["hash"])


async def sweep_volume(
    bench: Workbench, *, repair: bool = True, accept_losses: bool = False, clear_paths: bool = False
) -> list[Finding]:
    """Sweeps every workspace that has a directory or should have one; one that fails does not stop the others.

    Only what two looks find, `SETTLE_S` apart, is a finding: a single look also shows what executors are about to make
    or to remove. With `repair=False` it changes nothing. If the brake holds, the sweep marks no tree lost and moves
    none to quarantine; `accept_losses` says that a person has decided. `clear_paths` says the same of what stands at a
    workspace's path instead of the link: it is moved to quarantine.

    Raises as `check_log` does, `EngineError` if the volume cannot be listed, and the errors of the connection.
    """
    await check_log(bench)
    # Before the looks: what a task notes after them must stay.
    noted = {row["workspace_id"] for row in await bench.path.pool.fetch(_PATHS_NOTED)}
    confirmed = await _confirmed(bench)
    counted = Counter(finding.action for _, finding in confirmed)
    brake = await brake_for(bench.path.pool, counted[Action.LOST], counted[Action.QUARANTINED])
    held = brake.holds and not accept_losses
    findings: list[Finding] = []
    for workspace_id, finding in confirmed:
        if held and finding.action in _BRAKED:
            findings.append(msgspec.structs.replace(finding, held=True))
        elif finding.action is Action.UNREADABLE:
            findings.append(finding)
        elif finding.action is Action.PATH_REPLACED and clear_paths:
            findings += await _guarded(bench, workspace_id, repair_path(bench, workspace_id, finding))
        elif repair:
            findings += await _guarded(bench, workspace_id, settle(bench, workspace_id, finding))
        else:
            findings += await _guarded(bench, workspace_id, report(bench, finding))
    if repair:
        if restored := [workspace_id for workspace_id in noted if not await _is_path_replaced(bench, workspace_id)]:
            await bench.path.pool.execute(_PATHS_RESTORED, restored)
        await keep_brake(bench.path.pool, brake if held else msgspec.structs.replace(brake, lost=0, unknown=0))
    return findings


async def sweep_after_lost_claim(bench: Workbench, workspace_id: UUID) -> None:
    """Tidies one workspace whose claim was taken over or stale; after a failure a later sweep does it."""
    try:
        await check_log(bench)
        await tidy_workspace(bench, workspace_id)
    except (RestoredDatabaseError, WrongVolumeError) as error:
        log.critical("sweeping_stopped", reason=str(error))
    except _FAILURES as error:
        survived(bench.metrics, "sweep", error, "workspace_not_swept")


async def sweep_periodically(bench: Workbench, url: str, stopping: asyncio.Event) -> None:
    """Sweeps at the start and about every minute, and looks at volume, log and disks in between, until `stopping`."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    disks = DiskWatch(bench)
    while not stopping.is_set():
        await disks.look()
        try:
            await _try_to_record_seen(bench)
            if loop.time() >= due and await _sweep_alone(bench, url):
                due = loop.time() + _spread(SWEEP_EVERY_S)
            bench.metrics.volume_brake.set(await is_brake_held(bench.path.pool))
        except (RestoredDatabaseError, WrongVolumeError) as error:
            bench.metrics.sweeper_trees.labels(action="stopped").inc()
            log.critical("sweeping_stopped", reason=str(error))
        except _FAILURES as error:
            survived(bench.metrics, "sweep", error, "sweep_failed")
        except Exception as error:  # noqa: BLE001 - the next sweep is due in a minute
            survived(bench.metrics, "sweep", error, "sweep_crashed", crashed=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _spread(LOOK_EVERY_S))


async def _try_to_record_seen(bench: Workbench) -> None:
    """As `record_seen`, but goes on if the volume has no room for the position: the sweep makes some."""
    try:
        await record_seen(bench)
    except EngineError as error:
        survived(bench.metrics, "sweep", error, "position_not_recorded")


def _spread(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - only spreads the sweeps


async def _with_trees(pool: Pool) -> AsyncGenerator[UUID]:
    """The workspaces that have a live tree according to the log."""
    after = UUID(int=0)
    while rows := await pool.fetch(_WITH_TREES, after, _PAGE):
        for row in rows:
            yield row["id"]
        after = rows[-1]["id"]


async def missing_trees(bench: Workbench) -> tuple[int, int]:
    """How many of the trees that must exist are missing on the volume, and how many must exist."""
    missing = 0
    async for workspace_id in _with_trees(bench.path.pool):
        found = await look(bench, workspace_id)
        missing += sum(finding.action in (Action.LOST, Action.LIVE_MISSING) for finding in found)
    return missing, (await brake_for(bench.path.pool, 0, 0)).trees


async def all_workspaces(bench: Workbench) -> list[UUID]:
    """The workspaces that have a directory on the volume, or a live tree according to the log."""
    on_volume = {parse_id(WORKSPACE, name) for name in await bench.run(bench.volume.workspaces)}
    return sorted(on_volume | {workspace_id async for workspace_id in _with_trees(bench.path.pool)})


async def _confirmed(bench: Workbench) -> list[tuple[UUID, Finding]]:
    """What the first look finds and the second look finds again."""
    suspected: dict[UUID, list[Finding]] = {}
    for workspace_id in await all_workspaces(bench):
        try:
            found = await look(bench, workspace_id)
        except CONNECTION_LOST:
            raise
        except Exception as error:  # noqa: BLE001 - the second look counts and logs it if it lasts
            found = [_unreadable(workspace_id, error)]
        if found:
            suspected[workspace_id] = found
    if suspected:
        await asyncio.sleep(SETTLE_S)
    confirmed: list[tuple[UUID, Finding]] = []
    for workspace_id, found in suspected.items():
        first = {finding.key for finding in found}
        again = await _guarded(bench, workspace_id, look(bench, workspace_id))
        confirmed += [(workspace_id, finding) for finding in again if finding.key in first]
    return confirmed


async def _is_path_replaced(bench: Workbench, workspace_id: UUID) -> bool:
    """Whether something else stands at the workspace's path; also True if that cannot be seen now."""
    workspace = format_id(WORKSPACE, workspace_id)
    try:
        if not await bench.run(bench.volume.has_workspace, workspace):
            return False
        return isinstance(await bench.run(bench.volume.standing, workspace), Stranger)
    except EngineError as error:
        survived(bench.metrics, "sweep", error, "path_not_seen", workspace_id=workspace)
        return True


async def _guarded(bench: Workbench, workspace_id: UUID, work: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    """The findings of `work`; one damaged workspace does not stop the sweep of the others."""
    try:
        return await work
    except CONNECTION_LOST:
        raise
    except Exception as error:  # noqa: BLE001 - counted, logged and reported as a finding
        finding = _unreadable(workspace_id, error)
        survived(bench.metrics, "sweep", error, "workspace_not_swept", crashed=True, workspace_id=finding.workspace)
        return [finding]


def _unreadable(workspace_id: UUID, error: Exception) -> Finding:
    detail = f"{error}. {error.hint}" if isinstance(error, EngineError) else str(error)
    return Finding(Action.UNREADABLE, format_id(WORKSPACE, workspace_id), "", detail)


async def _sweep_alone(bench: Workbench, url: str) -> bool:
    """Sweeps unless another executor sweeps; True if it swept.

    Two sweepers at once do no harm, only double work. Therefore one that hangs is simply disconnected: each of its
    steps is safe even if it comes late.
    """
    connection = await connect(url, application_name="wvs-sweeper")
    try:
        if not await connection.fetchval(_LOCK, SWEEPER, 0):
            if await connection.fetchval(_END_HANGING, SWEEPER, 0, bench.settings.lease_s):
                bench.metrics.lease_lost.inc()
                log.warning("hanging_sweeper_cut_off")
            return False
        async with background(_keep_alive(connection, bench.settings.lease_renew_s)):
            found = await sweep_volume(bench)
            bench.metrics.volume_stuck_trees.set(sum(finding.action is Action.STUCK for finding in found))
    finally:
        connection.terminate()
    return True


async def _keep_alive(connection: Connection, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await connection.execute("SELECT 1")
