"""Reports who holds the log's watermark back: all readers of the log wait for that transaction (design §5.3)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

import structlog

from wvs.background import background
from wvs.eventlog.reading.follower import WatermarkHolder, watermark_holder
from wvs.postgres.pool import Pool, acquire
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics

WATERMARK_STUCK_S: Final = 10.0
"""An append holds the watermark for milliseconds; one of this age is named in the log and in a metric."""
_LOOK_EVERY_S: Final = 2.0

_log = structlog.get_logger("wvs.http")


class WatermarkWatch:
    """Looks every `look_every_s`. Ages are by this process's monotonic clock, from the first look that saw the holder:
    clocks may jump, and PostgreSQL does not show the times of other roles' sessions.
    """

    def __init__(
        self,
        pool: Pool,
        metrics: Metrics,
        look_every_s: float = _LOOK_EVERY_S,
        stuck_s: float = WATERMARK_STUCK_S,
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._look_every_s = look_every_s
        self._stuck_s = stuck_s
        self._holder: WatermarkHolder | None = None
        self._seen_at = 0.0
        self._reported = False
        self._failing = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Looks periodically while the block lasts."""
        async with background(self._look_forever()):
            yield

    async def _look_forever(self) -> None:
        while True:
            try:
                async with acquire(self._pool) as connection:
                    holder = await watermark_holder(connection)
                self._report(holder, asyncio.get_running_loop().time())
                self._failing = False
            except Exception as error:  # noqa: BLE001 - an outage: the next look is due soon
                if self._failing:  # count every failure, log once per outage
                    self._metrics.ignored_failures.labels("watermark_watch").inc()
                else:
                    survived(self._metrics, "watermark_watch", error, "http.watermark_watch_failed")
                self._failing = True
            await asyncio.sleep(self._look_every_s)

    def _report(self, holder: WatermarkHolder | None, now: float) -> None:
        if holder is None or self._holder is None or not holder.is_same(self._holder):
            self._forget(now)
        self._holder = holder
        age_s = 0.0 if holder is None else now - self._seen_at
        self._metrics.watermark_age_seconds.set(age_s)
        if holder is None or age_s < self._stuck_s:
            return
        self._metrics.watermark_holder_age_seconds.labels(holder.application, holder.pid or 0).set(age_s)
        if not self._reported:
            self._reported = True
            _log.warning(
                "http.watermark_stuck",
                reason="a transaction holds the log's watermark, so that event streams and event lists end before it",
                after_position=holder.key,
                pid=holder.pid,
                application=holder.application,
                role=holder.role,
                state=holder.state,
                waits_for=holder.wait_event,
                seen_for_s=round(age_s, 1),
                transaction_age_s=holder.age_s,
                advice="wvs runbook stuck-watermark",
            )

    def _forget(self, now: float) -> None:
        self._seen_at = now
        self._metrics.watermark_holder_age_seconds.clear()
        if self._reported and self._holder is not None:
            _log.info("http.watermark_moves", pid=self._holder.pid, application=self._holder.application)
        self._reported = False
