"""A check beside executors that work says nothing about their work, however far away the database is."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import UUID

from tests.integration.executor.platform import Platform, eventually, value
from tests.integration.executor.tcp_proxy import TcpProxy

from wvs.domain.states import TaskState
from wvs.postgres.pool import create_pool
from wvs.telemetry.metrics import Metrics

AWAY_S = 0.075
"""Each way: 150 ms there and back."""


async def check(url: str, volume: Path) -> tuple[int, str]:
    environment = {**os.environ, "WVS_DATABASE_URL": url, "WVS_VOLUME": str(volume)}
    command = [sys.executable, "-m", "wvs.cli.wvs", "volume", "check"]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    return done.returncode, done.stdout + done.stderr


@contextlib.asynccontextmanager
async def far_platform(platform: Platform) -> AsyncGenerator[tuple[Platform, str]]:
    async with TcpProxy(platform.url, delay_s=AWAY_S).running() as proxy:
        pool = await create_pool(proxy.url, application_name="wvs test", size=4)
        try:
            async with Platform(pool, proxy.url, platform.volume).hinting() as far:
                yield far, proxy.url
        finally:
            await pool.close()


async def work(platform: Platform, workspace_id: UUID, done: list[TaskState]) -> None:
    """Snapshots, switches of the live tree and drops, one after the other, until it is cancelled."""
    while True:
        first, second = [await platform.ready_snapshot(workspace_id) for _ in range(2)]
        done.append(await platform.set_current(workspace_id, first))
        done.append(await platform.set_current(workspace_id, second))
        done.append(await platform.drop(workspace_id, first))


async def test_five_of_five_checks_beside_work_find_nothing(platform: Platform) -> None:
    done: list[TaskState] = []
    metrics = Metrics()
    async with far_platform(platform) as (far, url), far.running(metrics):
        workspaces = [await far.create() for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            working = [group.create_task(work(far, workspace_id, done)) for workspace_id in workspaces]
            checks = [await check(url, platform.volume) for _ in range(5)]
            for task in working:
                task.cancel()
        assert [code for code, _ in checks] == [0] * 5, "\n".join(text for _, text in checks)
        assert set(done) == {TaskState.SUCCEEDED}
        assert len(done) > 5, "nothing worked beside the checks"
        for workspace_id in workspaces:
            await far.until_swept(workspace_id)
    for action in ("lost", "quarantined", "live_missing", "unreadable"):
        assert value(metrics, "wvs_sweeper_trees_total", action=action) == 0


async def test_a_check_finds_what_stays_wrong(platform: Platform) -> None:
    async with far_platform(platform) as (far, url):
        async with far.running():
            workspace_id = await far.create()
            await far.ready_snapshot(workspace_id)
        (far.home(workspace_id) / "trees" / "by hand").mkdir()

        async def found() -> bool:
            code, text = await check(url, platform.volume)
            return code == 1 and "by hand: unknown directory" in text

        await eventually(found)
