"""A database restored from an older copy beside a newer volume: nothing is swept until an operator raises the epoch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from tests.conftest import with_database
from tests.integration.executor.platform import Platform, eventually, value

from wvs.domain.states import TaskState
from wvs.engines.volume.opening import open_volume
from wvs.postgres.pool import create_pool
from wvs.telemetry.metrics import Metrics


@asynccontextmanager
async def platform_on(url: str, volume: Path) -> AsyncIterator[Platform]:
    pool = await create_pool(url, application_name="wvs test", size=4)
    try:
        async with Platform(pool, url, volume).hinting() as made:
            yield made
    finally:
        await pool.close()


def name_of(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def copy_database(admin_url: str, source_url: str, name: str) -> str:
    source = source_url.split("?", maxsplit=1)[0].rsplit("/", 1)[1]
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{source}"'.encode())
    return with_database(admin_url, name)


def on_volume(volume: Path) -> set[str]:
    return {str(p.relative_to(volume)) for p in volume.glob("ws_*/**/*")}


async def grow(platform: Platform, workspace_id: UUID) -> UUID:
    """Another snapshot, made the live tree; what was live before is removed."""
    snapshot_id = await platform.ready_snapshot(workspace_id)
    assert await platform.set_current(workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await platform.until_swept(workspace_id)
    return snapshot_id


async def volume_has_last_position(platform: Platform, volume: Path) -> bool:
    seen = open_volume(str(volume)).seen()
    last = await platform.pool.fetchval("SELECT max(notification_id) FROM wvs.events")
    return seen is not None and seen.position == last


async def test_nothing_is_swept_beside_a_restored_database_until_the_epoch_is_raised(
    admin_url: str, database_url: str, volume: Path
) -> None:
    async with platform_on(database_url, volume) as platform, platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("first")
        first = await grow(platform, workspace_id)
    backup = copy_database(
        admin_url, database_url, f"{database_url.split('?', maxsplit=1)[0].rsplit('/', 1)[1]}_backup"
    )
    try:
        async with platform_on(database_url, volume) as platform:
            async with platform.running():
                (platform.live(workspace_id) / "a").write_text("second")
                await grow(platform, workspace_id)
            async with platform.running():
                await eventually(lambda: volume_has_last_position(platform, volume))
        async with platform_on(backup, volume) as restored:
            await _guarded(restored, volume)
            await _resumed(restored, volume, workspace_id, first)
    finally:
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(f'drop database "{name_of(backup)}" with (force)'.encode())


async def _guarded(restored: Platform, volume: Path) -> None:
    before = on_volume(volume)
    metrics = Metrics()
    async with restored.running(metrics):
        await eventually(lambda: stopped(metrics))
        # The database keeps working, and soon assigns the positions again that the volume has seen.
        seen = open_volume(str(volume)).seen()
        assert seen is not None
        while await restored.pool.fetchval("SELECT max(notification_id) FROM wvs.events") <= seen.position:
            await restored.create()
    metrics = Metrics()
    async with restored.running(metrics):
        await eventually(lambda: stopped(metrics))
    assert before <= on_volume(volume), "nothing was removed, nothing moved aside"
    assert open_volume(str(volume)).seen() == seen
    for action in ("retired", "purged", "quarantined", "lost"):
        assert value(metrics, "wvs_sweeper_trees_total", action=action) == 0


async def stopped(metrics: Metrics) -> bool:
    return value(metrics, "wvs_sweeper_trees_total", action="stopped") > 0


async def _resumed(restored: Platform, volume: Path, workspace_id: UUID, first: UUID) -> None:
    """The steps of the runbook: raise the epoch, then reset from a snapshot that both have."""
    newer = restored.trees(workspace_id) - await restored.trees_now(workspace_id)
    assert newer
    await restored.pool.execute("UPDATE wvs.log_identity SET epoch = epoch + 1")
    async with restored.running():
        await eventually(lambda: volume_has_last_position(restored, volume))
        assert await restored.set_current(workspace_id, first, reset=True) is TaskState.SUCCEEDED
        await restored.until_swept(workspace_id)
    assert (restored.live(workspace_id) / "a").read_text() == "first"
    kept = {p.name.split("-", 1)[1] for p in (volume / ".wvs" / "quarantine").glob("ws_*/*")}
    assert newer <= kept, "trees of the lost part of the log are kept for a person"
