"""`wvs volume init`, `check`, `rebind` and `upgrade`."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec.structs import replace
from uuid_utils.compat import uuid7

from wvs.application.write_path import WritePath
from wvs.cli.wvs.environment import database_url
from wvs.engines.base import EngineName
from wvs.engines.volume.identity import LAYOUT_VERSION
from wvs.engines.volume.opening import init_volume, open_volume
from wvs.engines.volume.upgrade import open_old_volume
from wvs.engines.volume.volume import Volume
from wvs.eventlog.codec import EventMapper
from wvs.executor.volume_binding import rebind
from wvs.executor.volume_sweep import missing_trees, sweep_volume
from wvs.executor.volume_upgrade import Upgraded, upgrade_volume
from wvs.executor.workbench import Workbench
from wvs.executor.workspace_sweep import DIFFERENCES, Finding
from wvs.postgres.access import check_access
from wvs.postgres.compatibility import check_schema
from wvs.postgres.pool import acquire, close, create_pool
from wvs.settings import Settings
from wvs.telemetry.metrics import Metrics

_BRAKE = (
    "the brake holds: these are unusually many losses at once, and nothing was marked lost or quarantined\n"
    "Check that the volume is the right one and wholly mounted.\n"
    "If the trees are really gone: wvs volume check --accept-losses\n"
    "Read: wvs runbook volume-losses\n"
)


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


def run_check(settings: Settings, *, repair: bool, accept_losses: bool = False) -> int:
    """Prints every finding; returns 1 if there is one. `accept_losses` repairs, too."""
    repair = repair or accept_losses
    findings = asyncio.run(_check(settings, repair=repair, accept_losses=accept_losses))
    for finding in findings:
        detail = f" ({finding.detail})" if finding.detail else ""
        sys.stdout.write(f"{finding.workspace} {finding.name}: {DIFFERENCES[finding.action]}{detail}\n")
    action = "repaired as far as possible" if repair else "to repair them as far as possible: wvs volume check --repair"
    sys.stdout.write(f"findings: {len(findings)}; {action}\n" if findings else "the volume matches the log\n")
    if any(finding.held for finding in findings):
        sys.stdout.write(_BRAKE)
    return 1 if findings else 0


def run_rebind(settings: Settings) -> int:
    """Makes the database and the volume of the settings name each other; prints how many trees are on the volume."""
    sys.stdout.write(asyncio.run(_rebind(settings)))
    return 0


def run_upgrade(settings: Settings) -> int:
    """Brings the volume to the present layout; prints what a person should know of it."""
    with _with_database(settings) as reached:
        done = asyncio.run(_upgrade(reached))
    if done.workspaces is None:
        sys.stdout.write(f"{settings.volume_path} is up to date: layout {LAYOUT_VERSION}\n")
        return 0
    for sentence in done.said:
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"{settings.volume_path} has layout {LAYOUT_VERSION} now: workspaces: {done.workspaces}\n")
    return 0


@contextlib.contextmanager
def _with_database(settings: Settings) -> Generator[Settings]:
    """The settings of a database that runs; starts the embedded one of a `wvs up` that does not run, and migrates it.

    While the volume has an older layout `wvs up` cannot run, so nothing else starts that database.
    """
    from wvs.postgres.discovery import find_running_server  # noqa: PLC0415 - as in `database_url`
    from wvs.postgres.embedded import EmbeddedPostgres  # noqa: PLC0415 - as above

    is_there = settings.database_url is not None or find_running_server(settings.data_dir) is not None
    if is_there or not EmbeddedPostgres.exists(settings.data_dir):
        yield settings
        return
    from wvs.postgres.migrate import migrate  # noqa: PLC0415 - it needs the extra [up]

    with EmbeddedPostgres(settings.data_dir) as server:
        asyncio.run(migrate(server.url(), database_wait_s=settings.database_wait_s))
        yield replace(settings, database_url=server.url())


async def _check(settings: Settings, *, repair: bool, accept_losses: bool) -> list[Finding]:
    async with _workbench(settings, "wvs-volume-check") as bench:
        return await sweep_volume(bench, repair=repair, accept_losses=accept_losses, clear_paths=repair)


async def _rebind(settings: Settings) -> str:
    async with _workbench(settings, "wvs-volume-rebind") as bench:
        before = await rebind(bench.path.pool, bench.volume)
        missing, trees = await missing_trees(bench)
    named = "no volume" if before is None else f"the volume {before.id}, last used at {before.path}"
    return (
        f"the database named {named}; it names the volume {bench.volume.identity.id} at {bench.volume.path} now\n"
        f"{trees - missing} of the {trees} trees that must exist are on it\n"
        + ("read before you start an executor: wvs runbook volume-losses\n" if missing else "")
    )


async def _upgrade(settings: Settings) -> Upgraded:
    # Opened first: a volume that cannot be upgraded is refused without a database.
    volume = await asyncio.to_thread(open_old_volume, str(settings.volume_path))
    async with _workbench(settings, "wvs-volume-upgrade", volume) as bench:
        return await upgrade_volume(bench, volume)


@contextlib.asynccontextmanager
async def _workbench(settings: Settings, name: str, opened: Volume | None = None) -> AsyncGenerator[Workbench]:
    metrics = Metrics()
    url = database_url(settings)
    await check_access(url, for_writes=False)
    pool = await create_pool(url, application_name=name, size=2)
    try:
        async with acquire(pool) as connection:
            await check_schema(connection)
        volume = opened or await asyncio.to_thread(open_volume, str(settings.volume_path))
        with ThreadPoolExecutor(2) as threads:
            yield Workbench(
                name.removeprefix("wvs-"), volume, WritePath(pool, EventMapper(), metrics), threads, settings, metrics
            )
    finally:
        await close(pool)
