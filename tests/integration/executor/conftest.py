"""A volume in a directory of its own, an executor in this process, and a caller that uses both as the API does."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from wvs.domain.commands import Command, CreateSnapshot, CreateWorkspace, DropSnapshot, SetCurrent
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import RETRYABLE_STATES, TaskState
from wvs.domain.workspace import Workspace
from wvs.engines.opening import init_volume
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.write_path import Origin, WritePath
from wvs.executor.worker import Executor
from wvs.postgres.pool import Pool
from wvs.postgres.queries import sql
from wvs.settings import Settings
from wvs.telemetry.metrics import Metrics


class Platform:
    """The caller: commands in, and a look at how their tasks end."""

    def __init__(self, pool: Pool, url: str, volume: Path) -> None:
        self.pool = pool
        self.url = url
        self.volume = volume
        self.path = WritePath(pool, EventMapper(), Metrics())
        self.settings = Settings(lease_s=2.0, lease_renew_s=0.5, poll_s=0.1, drain_grace_s=2.0)

    def settings_with_volume(self) -> Settings:
        return replace(self.settings, volume=self.volume)

    def settings_change(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)

    def executor(self) -> Executor:
        return Executor(self.settings, self.url, self.volume, Metrics())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Executor]:
        executor = self.executor()
        task = asyncio.create_task(executor.run())
        try:
            yield executor
        finally:
            executor.stop()
            await task

    async def execute(self, workspace_id: UUID, command: Command) -> Workspace:
        origin = Origin(actor="tester", request_id="test")
        committed = await self.path.execute(workspace_id, command, at=datetime.now(UTC), origin=origin)
        assert committed.workspace is not None
        return committed.workspace

    async def create(self) -> UUID:
        workspace_id, task_id = uuid.uuid4(), uuid.uuid4()
        await self.execute(workspace_id, CreateWorkspace(f"w-{workspace_id.hex[:8]}", {}, task_id))
        assert await self.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        return workspace_id

    async def snapshot(self, workspace_id: UUID) -> tuple[UUID, TaskState]:
        snapshot_id, task_id = uuid.uuid4(), uuid.uuid4()
        await self.execute(workspace_id, CreateSnapshot(snapshot_id, task_id, None, {}))
        return snapshot_id, await self.wait(workspace_id, task_id)

    async def set_current(self, workspace_id: UUID, snapshot_id: UUID, *, reset: bool = False) -> TaskState:
        task_id = uuid.uuid4()
        await self.execute(workspace_id, SetCurrent(snapshot_id, task_id, reset))
        return await self.wait(workspace_id, task_id)

    async def drop(self, workspace_id: UUID, snapshot_id: UUID) -> TaskState:
        task_id = uuid.uuid4()
        await self.execute(workspace_id, DropSnapshot(snapshot_id, task_id))
        return await self.wait(workspace_id, task_id)

    async def wait(self, workspace_id: UUID, task_id: UUID, seconds: float = 20) -> TaskState:
        async with asyncio.timeout(seconds):
            while True:
                workspace = await self.path.load(workspace_id)
                assert workspace is not None
                state = workspace.task_state(task_id)
                assert state is not None
                final = state is TaskState.FAILED or state not in RETRYABLE_STATES
                if final and not await self.pool.fetchval(sql("link_is_pending"), workspace_id):
                    return state
                await asyncio.sleep(0.01)

    def live(self, workspace_id: UUID) -> Path:
        return self.volume / format_id(WORKSPACE, workspace_id) / "current"

    def trees(self, workspace_id: UUID, place: str = "trees") -> set[str]:
        return {p.name for p in (self.volume / format_id(WORKSPACE, workspace_id) / place).iterdir()}


@pytest.fixture
async def platform(pool: Pool, database_url: str, tmp_path: Path) -> Platform:
    volume = tmp_path / "volume"
    init_volume(str(volume), uuid.uuid4(), "copy")
    return Platform(pool, database_url, volume)
