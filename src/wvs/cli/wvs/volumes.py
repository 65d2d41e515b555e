"""`wvs volume init` and `wvs volume check`."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from uuid_utils.compat import uuid7

from wvs.application.write_path import WritePath
from wvs.cli.wvs.environment import database_url
from wvs.engines.base import EngineName
from wvs.engines.volume.opening import init_volume, open_volume
from wvs.eventlog.codec import EventMapper
from wvs.executor.volume_sweep import sweep_volume
from wvs.executor.workbench import Workbench
from wvs.executor.workspace_sweep import Action, Finding
from wvs.postgres.compatibility import check_schema
from wvs.postgres.pool import acquire, close, create_pool
from wvs.settings import Settings
from wvs.telemetry.metrics import Metrics

_FINDINGS = {
    Action.RETIRED: "obsolete tree",
    Action.PURGED: "obsolete tree in the trash",
    Action.QUARANTINED: "unknown directory",
    Action.LOST: "the snapshot's directory is missing",
    Action.LIVE_MISSING: "the live tree is missing",
    Action.LINKED: "the link does not point to the live tree",
    Action.PATH_REPLACED: "something else is at the workspace's path",
    Action.UNREADABLE: "the workspace cannot be swept",
}


def run_init(path: Path, engine: EngineName | None) -> int:
    """Initializes the volume; prints the chosen engine, and for each other engine why it was not chosen."""
    made = init_volume(str(path), uuid7(), engine)
    if made.choice is None:
        sys.stdout.write(f"{path} is already a volume: engine {made.identity.engine}, id {made.identity.id}\n")
        return 0
    sys.stdout.write(f"{path} is a volume now: engine {made.identity.engine}, id {made.identity.id}\n")
    for probe in made.choice.probes:
        sys.stdout.write(f"  {probe.engine}: {probe.why}\n")
    return 0


def run_check(settings: Settings, *, repair: bool) -> int:
    """Prints every finding; returns 1 if there is one."""
    findings = asyncio.run(_check(settings, repair=repair))
    for finding in findings:
        detail = f" ({finding.detail})" if finding.detail else ""
        sys.stdout.write(f"{finding.workspace} {finding.name}: {_FINDINGS[finding.action]}{detail}\n")
    action = "repaired as far as possible" if repair else "to repair them as far as possible: wvs volume check --repair"
    sys.stdout.write(f"findings: {len(findings)}; {action}\n" if findings else "the volume matches the log\n")
    return 1 if findings else 0


async def _check(settings: Settings, *, repair: bool) -> list[Finding]:
    metrics = Metrics()
    pool = await create_pool(database_url(settings), application_name="wvs-volume-check", size=2)
    try:
        async with acquire(pool) as connection:
            await check_schema(connection)
        volume = await asyncio.to_thread(open_volume, str(settings.volume_path))
        with ThreadPoolExecutor(2) as threads:
            path = WritePath(pool, EventMapper(), metrics)
            bench = Workbench("volume-check", volume, path, threads, settings, metrics)
            return await sweep_volume(bench, repair=repair, clear_paths=repair)
    finally:
        await close(pool)
