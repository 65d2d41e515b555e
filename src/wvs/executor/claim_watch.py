"""The watch of a running task: renews its lease off the work's path, carries progress out and orders in."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Final, assert_never

import structlog

from wvs.background import background
from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, CloneProgress
from wvs.postgres.pool import Connection
from wvs.queue.lanes import Claim, Order, Progress, renew
from wvs.telemetry.metrics import Metrics

TICK_S: Final = 0.5
"""Progress is written, and orders are asked for, at most this often."""

log = structlog.get_logger(__name__)


class ClaimWatch:
    """Watches over one claim. `cancel` is what the work in threads looks at between two safe points.

    `touched` says that a drop has started_at: from then on its snapshot cannot become ready again.
    """

    def __init__(self, connection: Connection, claim: Claim, lease_s: float, renew_s: float, metrics: Metrics) -> None:
        self._connection = connection
        self._claim = claim
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._metrics = metrics
        self._progress = Progress("starting")
        self._told: Progress | None = None
        self.started_at = time.monotonic()
        self.cancel = Cancel()
        self.lost = False
        self.draining = False
        self.touched = False

    def phase(self, name: str) -> None:
        """Tells what the task does now; counts go on from where they are."""
        before = self._progress
        self._progress = Progress(name, before.files_done, before.files_total, before.bytes_done, before.bytes_total)

    def on_progress(self, progress: CloneProgress) -> None:
        """Takes an engine's progress; called in its threads."""
        self._progress = Progress(
            self._progress.phase,
            progress.files_done,
            progress.files_total,
            progress.bytes_done,
            progress.bytes_total,
        )

    def touch(self) -> None:
        """A drop begins with its directory."""
        self.touched = True

    def safe_point(self) -> None:
        """The last place to end before the result is committed; raises `EngineError` if somebody asked for that.

        Work that is done is committed by an executor that is to stop, not handed back.
        """
        if self.lost or not self.draining:
            self.cancel.check()

    def hand_back(self) -> None:
        """Ends the work at its next safe point because this executor is to stop."""
        self.draining = True
        self.cancel.request("the executor is shutting down", ErrorCode.LEASE_LOST)

    def lose(self, why: str) -> None:
        """Ends the work because the claim is not ours any more: it may commit nothing."""
        if not self.lost:
            self.lost = True
            self._metrics.lease_lost.inc()
            log.warning("lease_lost", why=why)
        self.cancel.request(f"the claim was lost: {why}", ErrorCode.LEASE_LOST)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator["ClaimWatch"]:
        """Watches while the block lasts."""
        async with background(self._watch()):
            yield self

    async def _watch(self) -> None:
        try:
            await self._renew_and_apply()
        except Exception as error:  # noqa: BLE001 - a lease that nobody renews is lost, whatever the reason
            # Mostly the connection, which carried the advisory lock: with it went the proof that we are alive.
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
        changed = progress if progress != self._told else None
        order = await renew(self._connection, self._claim, lease_s, changed)
        self._told = progress
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
