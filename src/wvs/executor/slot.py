"""A slot: one connection of its own, one task at a time. The connection carries the lane's advisory lock."""

import asyncio
import contextlib
import random
from typing import Final

import asyncpg
import structlog

from wvs.domain.errors import Refused
from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.errors import EngineError
from wvs.eventlog.write_path import CONNECTION_LOST, OutcomeUnknownError
from wvs.executor.attempt import attempt, bind_context, discard
from wvs.executor.guard import Guard
from wvs.executor.operations import Leftover
from wvs.executor.sweeper import sweep_workspace
from wvs.executor.workbench import Job, Workbench
from wvs.postgres.pool import Connection, connect
from wvs.queue.lanes import Claim, LaneCursor, claim, release

_RECONNECT_S: Final = 0.5

log = structlog.get_logger(__name__)


class Slot:
    """Claims and runs tasks until it is told to stop."""

    def __init__(self, bench: Workbench, url: str, stopping: asyncio.Event) -> None:
        self._bench = bench
        self._url = url
        self._stopping = stopping
        self._wake = asyncio.Event()
        self._cursor = LaneCursor()
        self.guard: Guard | None = None

    def wake(self) -> None:
        """There may be work."""
        self._wake.set()

    async def run(self) -> None:
        """Works; a lost connection is made anew, and whatever was running on it is left to the next claim."""
        while not self._stopping.is_set():
            try:
                await self._work()
            except (*CONNECTION_LOST, asyncpg.PostgresError, OutcomeUnknownError) as error:
                self._bench.metrics.ignored_failures.labels(where="slot").inc()
                log.warning("slot_lost_its_connection", error=repr(error))
                await self._pause(_RECONNECT_S)

    async def _work(self) -> None:
        settings = self._bench.settings
        connection = await connect(self._url, application_name=f"wvs-executor {self._bench.executor_id}")
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                claimed = await claim(connection, self._bench.executor_id, settings.lease_s, self._cursor)
                if claimed is None:
                    await self._pause(settings.poll_s * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads polls
                else:
                    await self._hold(connection, claimed)
        finally:
            # Not closed politely: that would wait for a server that may be gone, and the locks go either way.
            connection.terminate()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def _hold(self, connection: Connection, claimed: Claim) -> None:
        settings = self._bench.settings
        workspace = format_id(WORKSPACE, claimed.workspace_id)
        bind_context(claimed, workspace, self._bench.executor_id)
        guard = Guard(connection, claimed, settings.lease_s, settings.lease_renew_s, self._bench.metrics)
        job = Job(self._bench, claimed, guard)
        self.guard = guard
        leftover: Leftover | None = None
        try:
            async with guard.watching():
                leftover = await attempt(job)
        except Refused as refused:
            log.warning("claim_was_stale", detail=refused.detail)
        finally:
            self.guard = None
        await release(connection, claimed)
        await self._tidy(job, leftover)
        structlog.contextvars.clear_contextvars()

    async def _tidy(self, job: Job, leftover: Leftover | None) -> None:
        """What may take long and needs no lane; a crash in here leaves work for the sweeper."""
        if leftover is not None:
            await discard(job, leftover.tree)
        if job.claim.took_over:
            try:
                await sweep_workspace(self._bench, job.claim.workspace_id)
            except EngineError as error:
                self._bench.metrics.ignored_failures.labels(where="sweep").inc()
                log.warning("workspace_not_swept", code=str(error.code), detail=error.detail)
