"""Watches the claim of a running task: renews its lease beside the work, writes progress and receives orders."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final, assert_never

import structlog

from wvs.background import background
from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, CloneProgress
from wvs.executor.stopwatch import Stopwatch
from wvs.postgres.pool import Connection
from wvs.queue.lanes import Claim, Order, TaskProgress, renew
from wvs.telemetry.metrics import Metrics

TICK_S: Final = 0.5
"""Seconds between two exchanges: progress out, orders in."""

log = structlog.get_logger(__name__)


class ClaimWatch:
    """Watches one claim. The work in threads checks `cancel` at its safe points.

    `since_claim` is the clock of the attempt, which dates its events. `touched` is true once a drop has begun: from
    then on its snapshot cannot become ready again. `volume_away` is true once the attempt failed because the executor
    cannot use the volume.
    """

    def __init__(self, connection: Connection, claim: Claim, lease_s: float, renew_s: float, metrics: Metrics) -> None:
        self._connection = connection
        self._claim = claim
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._metrics = metrics
        self._progress = TaskProgress("starting")
        self._reported: TaskProgress | None = None
        self.since_claim = Stopwatch()
        self.cancel = Cancel()
        self.lost = False
        self.draining = False
        self.touched = False
        self.volume_away = False

    def set_phase(self, name: str) -> None:
        """Sets the phase that progress shows; the counts stay."""
        last = self._progress
        self._progress = TaskProgress(name, last.files_done, last.files_total, last.bytes_done, last.bytes_total)

    def on_progress(self, progress: CloneProgress) -> None:
        """Records the progress of an engine, which calls this in its thread."""
        self._progress = TaskProgress(
            self._progress.phase,
            progress.files_done,
            progress.files_total,
            progress.bytes_done,
            progress.bytes_total,
        )

    def touch(self) -> None:
        """Records that a drop begins to remove its directory."""
        self.touched = True

    def safe_point(self) -> None:
        """The last safe point before the commit of the result; raises `EngineError` if the work is to end.

        An executor that shuts down commits work that is done; it does not hand it back.
        """
        if self.lost or not self.draining:
            self.cancel.check()

    def hand_back(self) -> None:
        """Ends the work at its next safe point because this executor shuts down."""
        self.draining = True
        self.cancel.request("the executor is shutting down", ErrorCode.LEASE_LOST)

    def lose(self, why: str) -> None:
        """Ends the work because the claim is lost: the executor may commit nothing."""
        if not self.lost:
            self.lost = True
            self._metrics.lease_lost.inc()
            log.warning("lease_lost", why=why)
        self.cancel.request(f"the claim was lost: {why}", ErrorCode.LEASE_LOST)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator["ClaimWatch"]:
        """Watches the claim during the block."""
        async with background(self._watch()):
            yield self

    async def _watch(self) -> None:
        try:
            await self._renew_and_apply()
        except Exception as error:  # noqa: BLE001 - a lease that is not renewed is lost, whatever the reason
            # Mostly the connection, and with it the advisory lock that proves that this executor is alive.
            self.lose(f"connection: {error!r}")

    async def _renew_and_apply(self) -> None:
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while not self.lost:
            await asyncio.sleep(TICK_S)
            due = loop.time() - renewed >= self._renew_s
            order = await self._ask(self._lease_s if due else None)
            renewed = loop.time() if due else renewed
            self._apply(order)

    async def _ask(self, lease_s: float | None) -> Order:
        progress = self._progress
        changed = progress if progress != self._reported else None
        order = await renew(self._connection, self._claim, lease_s, changed)
        self._reported = progress
        return order

    def _apply(self, order: Order) -> None:
        match order:
            case Order.GO_ON | Order.ENDED:
                pass
            case Order.CANCEL:
                self.cancel.request()
            case Order.DEADLINE:
                self.cancel.request("the task's time is over", ErrorCode.DEADLINE_EXCEEDED)
            case Order.STALE:
                self._metrics.fence_rejections.inc()
                self.lose("a newer claim exists")
            case _:
                assert_never(order)
