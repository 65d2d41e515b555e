"""Sweeping the whole volume now and then: one sweeper at a time, and none while the database may be an older one."""

import asyncio
import random
from typing import Final

import structlog

from wvs.domain.ids import WORKSPACE, parse_id
from wvs.engines.errors import EngineError
from wvs.engines.identity import LogPosition
from wvs.eventlog.follower import log_epoch, safe_position
from wvs.eventlog.write_path import CONNECTION_LOST
from wvs.executor.sweeper import Finding, sweep_workspace
from wvs.executor.workbench import Workbench
from wvs.postgres.locks import SWEEPER
from wvs.postgres.pool import connect
from wvs.postgres.queries import sql

SWEEP_EVERY_S: Final = 60.0
_LOCK: Final = sql("try_session_lock")

log = structlog.get_logger(__name__)


class RestoredDatabaseError(Exception):
    """The volume was told of positions that Postgres does not have: it would sweep away what that log had made."""


async def check_not_restored(bench: Workbench) -> LogPosition:
    """The log's position now; raises `RestoredDatabaseError` if the volume has seen a later one."""
    async with bench.path.pool.acquire() as connection:
        position = LogPosition(await log_epoch(connection), await safe_position(connection))
    seen = await bench.run(bench.volume.seen)
    if seen is not None and seen > position:
        raise RestoredDatabaseError(
            f"The volume has seen position {seen.epoch}:{seen.position}, the database is at "
            f"{position.epoch}:{position.position}. It was restored from an older copy; nothing is swept. "
            "See runbooks/restored-database.md."
        )
    return position


async def sweep_volume(bench: Workbench, *, repair: bool = True) -> list[Finding]:
    """Sweeps every workspace that has a directory; raises `RestoredDatabaseError` or `EngineError`."""
    position = await check_not_restored(bench)
    findings: list[Finding] = []
    for name in await bench.run(bench.volume.workspaces):
        findings += await sweep_workspace(bench, parse_id(WORKSPACE, name), repair=repair)
    if repair:
        await bench.run(bench.volume.record_seen, position)
    return findings


async def sweep_now_and_then(bench: Workbench, url: str, stopping: asyncio.Event) -> None:
    """Sweeps at the start and every minute or so, until told to stop."""
    while not stopping.is_set():
        try:
            await _sweep_alone(bench, url)
        except RestoredDatabaseError as error:
            bench.metrics.sweeper_trees.labels(action="stopped").inc()
            log.critical("sweeping_stopped", reason=str(error))
        except (*CONNECTION_LOST, EngineError) as error:
            bench.metrics.ignored_failures.labels(where="sweep").inc()
            log.warning("sweep_failed", error=repr(error))
        try:
            space = await bench.run(bench.volume.space)
            bench.metrics.volume_free_bytes.set(space.free)
            pause = SWEEP_EVERY_S * random.uniform(0.75, 1.25)  # noqa: S311 - only spreads the sweeps
            await asyncio.wait_for(stopping.wait(), pause)
        except EngineError as error:
            log.warning("volume_unavailable", detail=error.detail)
            await asyncio.sleep(1)
        except TimeoutError:
            continue


async def _sweep_alone(bench: Workbench, url: str) -> None:
    connection = await connect(url, application_name="wvs-sweeper")
    try:
        if await connection.fetchval(_LOCK, SWEEPER, 0):
            await sweep_volume(bench)
    finally:
        connection.terminate()
