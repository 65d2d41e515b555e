"""A slot: runs one task at a time, on its own connection, which holds the lane's advisory lock."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import asyncpg
import structlog

from wvs.application.write_path import KEPT_FOR_DROPS, OutcomeUnknownError
from wvs.domain.errors import Refused
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import TaskKind
from wvs.executor.attempt import attempt, bind_context, discard
from wvs.executor.claim_watch import ClaimWatch
from wvs.executor.operations import Leftover
from wvs.executor.outages import AWAY_PAUSE_S
from wvs.executor.volume_sweep import sweep_after_lost_claim
from wvs.executor.workbench import Job, Workbench
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.pool import Connection, connect
from wvs.queue.lanes import DEADLINES_S, Claim, LaneCursor, claim, park, release
from wvs.telemetry.failures import survived

PARKED_S: Final = 30.0
"""Seconds until a task is taken over whose executor failed by itself, not because of the task."""

_RECONNECT_S: Final = 0.5

log = structlog.get_logger(__name__)


class Slot:
    """Claims and runs tasks until `stopping` is set. Calls `on_serving` each time when it has looked for work."""

    def __init__(
        self,
        bench: Workbench,
        url: str,
        stopping: asyncio.Event,
        on_serving: Callable[[], None],
        deadlines_s: Mapping[TaskKind, float] = DEADLINES_S,
    ) -> None:
        self._bench = bench
        self._url = url
        self._stopping = stopping
        self._on_serving = on_serving
        self._deadlines_s = deadlines_s
        self._wake = asyncio.Event()
        self._cursor = LaneCursor()
        self._gives_way = False  # its last attempt did not find the volume: another executor may
        self.watch: ClaimWatch | None = None

    def wake(self) -> None:
        """Makes the slot look for work at once."""
        self._wake.set()

    async def run(self) -> None:
        """Works until stopped. After a lost connection it reconnects and leaves the task to the next claim."""
        while not self._stopping.is_set():
            try:
                await self._work()
            except (*CONNECTION_LOST, asyncpg.PostgresError, OutcomeUnknownError) as error:
                survived(self._bench.metrics, "slot", error, "slot_lost_its_connection")
                if isinstance(error, asyncpg.DiskFullError):
                    await self._make_room()
                await self._until_stopped(_RECONNECT_S)
            except Exception as error:  # noqa: BLE001 - a slot that ended would claim no more tasks
                survived(self._bench.metrics, "slot", error, "slot_crashed", crashed=True)
                await self._until_stopped(_RECONNECT_S)
            finally:
                structlog.contextvars.clear_contextvars()

    async def _work(self) -> None:
        settings = self._bench.settings
        connection = await connect(self._url, application_name=f"wvs-executor {self._bench.executor_id}")
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                claimed = await claim(
                    connection, self._bench.executor_id, settings.lease_s, self._cursor, self._deadlines_s
                )
                self._on_serving()
                if claimed is None and self._gives_way:
                    await self._until_stopped(AWAY_PAUSE_S)
                elif claimed is None:
                    await self._until_woken(settings.poll_s * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads polls
                else:
                    await self._run_claim(connection, claimed)
        finally:
            # No orderly close: it would wait for a server that may be gone, and the locks end either way.
            connection.terminate()

    async def _make_room(self) -> None:
        """Lets PostgreSQL use a part of the reserve: without a claim no task ends, and no snapshot is dropped."""
        reserve = self._bench.path.reserve
        if reserve is not None:
            with contextlib.suppress(OSError):  # the next claim that finds no room comes here again
                await asyncio.to_thread(partial(reserve.make_room, keep=KEPT_FOR_DROPS))

    async def _until_woken(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _until_stopped(self, seconds: float) -> None:
        """Waits, without regard to hints: they come over other connections than the one that failed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _run_claim(self, connection: Connection, claimed: Claim) -> None:
        bench, settings = self._bench, self._bench.settings
        bind_context(claimed, format_id(WORKSPACE, claimed.workspace_id), bench.executor_id)
        watch = ClaimWatch(connection, claimed, settings.lease_s, settings.lease_renew_s, bench.metrics)
        job = Job(bench, claimed, watch)
        self.watch = watch
        leftover: Leftover | None = None
        try:
            async with watch.watching():
                leftover = await attempt(job)
        except Refused as refused:
            log.warning("claim_was_stale", code=str(refused.code), detail=refused.detail)
            await sweep_after_lost_claim(bench, claimed.workspace_id)
        except (*CONNECTION_LOST, OutcomeUnknownError):
            raise
        except Exception as error:  # noqa: BLE001 - one damaged workspace must not end executor after executor
            survived(bench.metrics, "claim", error, "claim_crashed", crashed=True, parked_s=PARKED_S)
            await park(connection, claimed, PARKED_S)
        finally:
            self.watch = None
        await self._release(connection, job, leftover)
        self._gives_way = watch.volume_away
        if watch.volume_away:
            await self._until_stopped(AWAY_PAUSE_S)
        structlog.contextvars.clear_contextvars()

    async def _release(self, connection: Connection, job: Job, leftover: Leftover | None) -> None:
        """Frees the lane, then removes and sweeps, which may take long. After a crash the sweeper does that."""
        try:
            if await release(connection, job.claim):
                self._bench.hint()
        finally:
            if leftover is not None:
                await discard(job, leftover.tree)
            if job.claim.took_over or job.claim.link_pending:
                await sweep_after_lost_claim(self._bench, job.claim.workspace_id)
