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
from wvs.postgres.pool import create_pool
from wvs.settings import Settings
from wvs.telemetry.metrics import Metrics

_WORDS = {
    Action.RETIRED: "obsolete tree",
    Action.PURGED: "obsolete tree in the trash",
    Action.QUARANTINED: "directory that nobody intended",
    Action.LOST: "snapshot without its directory",
    Action.LIVE_MISSING: "live tree is missing",
    Action.LINKED: "link does not point to the live tree",
    Action.UNREADABLE: "the workspace cannot be swept",
}


def run_init(path: Path, engine: EngineName | None) -> int:
    """Makes the volume; says what was chosen, and why the others were not."""
    made = init_volume(str(path), uuid7(), engine)
    if made.choice is None:
        sys.stdout.write(f"{path} is a volume already: engine {made.identity.engine}, id {made.identity.id}\n")
        return 0
    sys.stdout.write(f"{path} is a volume now: engine {made.identity.engine}, id {made.identity.id}\n")
    for probe in made.choice.probes:
        sys.stdout.write(f"  {probe.engine}: {probe.why}\n")
    return 0


def run_check(settings: Settings, *, repair: bool) -> int:
    """Prints every finding; 1 if there is one."""
    findings = asyncio.run(_check(settings, repair=repair))
    for finding in findings:
        detail = f" ({finding.detail})" if finding.detail else ""
        sys.stdout.write(f"{finding.workspace} {finding.name}: {_WORDS[finding.action]}{detail}\n")
    done = "mended what can be mended" if repair else "wvs volume check --repair mends what can be mended"
    sys.stdout.write(f"{len(findings)} findings; {done}\n" if findings else "the volume is what the log says\n")
    return 1 if findings else 0


async def _check(settings: Settings, *, repair: bool) -> list[Finding]:
    metrics = Metrics()
    pool = await create_pool(database_url(settings), application_name="wvs-volume-check", size=2)
    try:
        volume = await asyncio.to_thread(open_volume, str(settings.volume_path))
        with ThreadPoolExecutor(2) as threads:
            path = WritePath(pool, EventMapper(), metrics)
            bench = Workbench("volume-check", volume, path, threads, settings, metrics)
            return await sweep_volume(bench, repair=repair)
    finally:
        await pool.close()
