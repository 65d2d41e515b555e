"""Postgres stopped and started under load: executors come back, no task is lost, none is done twice."""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.executor.platform import Platform
from tests.integration.executor.processes import Executors

from wvs.domain.states import TaskState
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate
from wvs.postgres.pool import create_pool

WORKSPACES = 4
SNAPSHOTS = 3


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A server of this test's own; its directory's name is short, so that its socket keeps its place."""
    directory = Path(tempfile.mkdtemp(prefix="wvs-pg-", dir="/tmp"))
    directory.chmod(0o755)
    made = EmbeddedPostgres(directory, durable=False, settings={"shared_buffers": "16MB"})
    made.start()
    yield made
    made.stop()
    shutil.rmtree(directory)


@asynccontextmanager
async def platform_on(url: str, volume: Path) -> AsyncIterator[Platform]:
    pool = await create_pool(url, application_name="wvs test", size=4)
    try:
        async with Platform(pool, url, volume).hinting() as made:
            yield made
    finally:
        await pool.close()


async def test_executors_come_back_and_every_task_is_done_once(
    server: EmbeddedPostgres, volume: Path, tmp_path: Path
) -> None:
    await migrate(server.url())
    executors = Executors(server.url(), volume, tmp_path)
    try:
        async with platform_on(server.url(), volume) as platform:
            running = [executors.start(failpoints="create.cloning=sleep:0.3") for _ in range(2)]
            asked = await _load(platform)
            for pause in (0.05, 0.4):
                await asyncio.sleep(pause)
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(0.7)
                await asyncio.to_thread(server.start)
            for workspace_id, task_id in asked:
                assert await _ended(platform, workspace_id, task_id) is TaskState.SUCCEEDED
            await _check(platform)
            assert all(process.alive for process in running)
            spins = max(len(process.lines("slot_lost_its_connection")) for process in running)
            assert spins < 40, "they wait between two tries to connect"
    finally:
        executors.close()


async def _load(platform: Platform) -> list[tuple[UUID, UUID]]:
    workspaces = [await platform.create() for _ in range(WORKSPACES)]
    for workspace_id in workspaces:
        platform.fill(workspace_id, 40)
    return [(w, (await platform.ask_for_snapshot(w))[1]) for _ in range(SNAPSHOTS) for w in workspaces]


async def _ended(platform: Platform, workspace_id: UUID, task_id: UUID) -> TaskState:
    for _ in range(20):
        try:
            return await platform.wait(workspace_id, task_id)
        except CONNECTION_LOST:
            await asyncio.sleep(0.5)
    raise AssertionError("the database is not back")


async def _check(platform: Platform) -> None:
    rows = await platform.pool.fetch(
        "SELECT task_id, count(*) AS ends FROM wvs.events WHERE topic IN ('snapshot.created.v1', "
        "'workspace.initialized.v1') GROUP BY task_id"
    )
    assert [row["ends"] for row in rows] == [1] * (WORKSPACES * (SNAPSHOTS + 1))
    assert await platform.pool.fetchval("SELECT count(*) FROM wvs.queue") == 0
    taken_over = "SELECT count(*) FROM wvs.events WHERE topic = 'task.attempt_failed.v1'"
    assert await platform.pool.fetchval(taken_over) >= 1, "tasks were running when the server went"
    for (workspace_id,) in await platform.pool.fetch("SELECT id FROM wvs.workspaces"):
        assert isinstance(workspace_id, uuid.UUID)
        await platform.until_swept(workspace_id, seconds=30)
