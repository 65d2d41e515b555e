"""The live feed: one follower of the log per process, however many event streams it serves."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Final, Protocol, TypeAlias
from uuid import UUID

import structlog
from msgspec import Struct

from wvs.background import background
from wvs.domain.errors import ErrorCode, Refused
from wvs.eventlog.reading.filtered_log import EventRow
from wvs.eventlog.reading.follower import Page, log_end, log_epoch, read_page, safe_position
from wvs.eventlog.reading.workspace_log import read_workspace_page
from wvs.http.live.recent_events import Batch, FeedEntry, RecentEvents, batch_of
from wvs.http.wire.positions import parse_position
from wvs.postgres.pool import Pool, acquire
from wvs.signals.hints import Broadcast
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics

RECENT_BYTES: Final = 4 * 1024 * 1024
BATCH_BYTES: Final = 128 * 1024

_PAGE: Final = 100
_CATCH_UP_PAGE: Final = 32
"""Events that a stream reads from the log at a time. Each stream keeps its own page in memory until it is sent."""
_MAX_CATCHING_UP: Final = 2
"""How many streams may read the log at the same time: commands need the pool's connections more."""
_COALESCE_S: Final = 0.002
_COALESCE_PER_STREAM_S: Final = 0.0001
_TICK_S: Final = 1.0
_DRAIN_GRACE_S: Final = 1.0
_RETRY_AFTER_S: Final = 10

EntryOf: TypeAlias = Callable[[int, EventRow], FeedEntry]
"""Encodes a stored event of this epoch for streams."""

_log = structlog.get_logger("wvs.http")


class FeedLimits(Struct, frozen=True):
    """Streams per process, seconds between heartbeats, and seconds for which a client may read nothing."""

    streams: int = 500
    heartbeat_s: float = 15.0
    stall_s: float = 30.0


class FollowingStream(Protocol):
    """A stream, as the feed sees it."""

    sending_since: float | None
    """When its present send started, on the event loop's clock; None while it sends nothing."""

    def abort(self) -> None:
        """Aborts its connection."""
        ...


class StreamStart(Struct, frozen=True):
    """Where a stream starts: after `position` in the log of `epoch`. `log` counts how often the log was replaced."""

    epoch: int
    position: int
    log: int


class Feed:
    """Follows the log while there are streams and keeps the newest events in memory for all of them.

    A stream that is too far behind reads older events from the log at its own pace, so that no stream waits for the
    slowest one.
    """

    def __init__(
        self, pool: Pool, entry_of: EntryOf, metrics: Metrics, draining: asyncio.Event, limits: FeedLimits
    ) -> None:
        self.changed = Broadcast()
        """Wakes the streams: for new events, for a heartbeat, and for the end."""
        self.draining = draining
        self.limits = limits
        self.metrics = metrics
        self._pool = pool
        self._entry_of = entry_of
        self._streams: set[FollowingStream] = set()
        self._recent: RecentEvents | None = None
        self._hint = asyncio.Event()
        self._catching_up = asyncio.Semaphore(_MAX_CATCHING_UP)
        self._epoch = 0
        self._log = 0
        self._failing = False
        self._compared_at = 0.0

    def hint(self) -> None:
        """Makes the feed read the log at once, because there may be new events. Never blocks."""
        self._hint.set()

    async def start(self, text: str | None) -> StreamStart:
        """The start for the position in `text`; without one, the end of the log. Refuses `INVALID_CURSOR`."""
        async with acquire(self._pool) as connection:
            end = await log_end(connection)
            position = parse_position(text, end) if text is not None else await safe_position(connection)
        return StreamStart(end.epoch, position, self._log)

    @contextlib.contextmanager
    def joined(self, stream: FollowingStream) -> Generator[None]:
        """Serves `stream` while the block lasts.

        Refuses `UNAVAILABLE` if the process already serves its maximum of streams, or drains.
        """
        if self.draining.is_set() or len(self._streams) >= self.limits.streams:
            raise Refused(
                ErrorCode.UNAVAILABLE,
                f"this process drains, or it already serves the maximum of {self.limits.streams} event streams",
                "Repeat the request after Retry-After seconds, share one stream, or page through GET /v1/events.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._streams.add(stream)
        self.metrics.event_streams.set(len(self._streams))
        self.hint()
        try:
            yield
        finally:
            self._streams.discard(stream)
            self.metrics.event_streams.set(len(self._streams))

    def must_end(self, start: StreamStart) -> bool:
        """Whether a stream with this start has to end: the service drains, or the log has been replaced since."""
        return self.draining.is_set() or start.log != self._log or self._epoch not in (0, start.epoch)

    async def after(self, start: StreamStart, position: int, workspace_id: UUID | None) -> Batch:
        """The events after `position`: those of the workspace, possibly with others. Empty until an event follows."""
        recent = self._recent
        if recent is not None and (found := recent.after(position, BATCH_BYTES)) is not None:
            return found
        async with self._catching_up, acquire(self._pool) as connection:
            if workspace_id is None:
                page = await read_page(connection, position, _CATCH_UP_PAGE)
            else:
                page = await read_workspace_page(connection, workspace_id, position, _CATCH_UP_PAGE)
        return batch_of(self._entries(page, start.epoch), page.safe, BATCH_BYTES)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["Feed"]:
        """Follows the log while the block lasts."""
        async with background(self._follow(), self._tick(), self._end_when_draining()):
            yield self

    def _entries(self, page: Page, epoch: int) -> list[FeedEntry]:
        return [self._entry_of(epoch, row) for row in page.rows]

    async def _follow(self) -> None:
        while True:
            await self._hint.wait()
            self._hint.clear()
            if not self._streams:
                self._recent = None  # a later stream starts at the end of the log, or catches up
                continue
            try:
                await self._detect_replaced_log()
                await self._read_new_events()
            except Exception as error:  # noqa: BLE001 - an outage: the streams stay open, and the next tick reads again
                self._report_failure(error)
            # One read serves a burst of commits. The more streams, the longer the pause: waking each one costs time.
            await asyncio.sleep(_COALESCE_S + _COALESCE_PER_STREAM_S * len(self._streams))

    async def _read_new_events(self) -> None:
        async with acquire(self._pool) as connection:
            recent = self._recent
            if recent is None:
                self._epoch = await log_epoch(connection)
                recent = self._recent = RecentEvents(await safe_position(connection), RECENT_BYTES)
            page = await read_page(connection, recent.head, _PAGE)
        recent.extend(self._entries(page, self._epoch), page.safe)
        self._failing = False
        if page.rows:
            self.changed.notify()
        if len(page.rows) == _PAGE:
            self.hint()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(_TICK_S, self.limits.heartbeat_s / 2))
            if not self._streams:
                self._recent, self._epoch = None, 0
                self.metrics.follower_lag_events.set(0)
                continue
            self._abort_stalled_streams()
            self.hint()
            self.changed.notify()

    async def _detect_replaced_log(self) -> None:
        """Ends all streams if an older copy has replaced the log: one stream must not mix positions of both logs."""
        recent, now = self._recent, asyncio.get_running_loop().time()
        if recent is None or now - self._compared_at < _TICK_S:
            return
        self._compared_at = now
        seen = recent.head  # read before the end of the log, because both grow
        async with acquire(self._pool) as connection:
            end = await log_end(connection)
        self.metrics.follower_lag_events.set(max(0, end.last - recent.head))
        if self._recent is recent and (end.epoch != self._epoch or end.last < seen):
            _log.warning("http.event_log_replaced", epoch=end.epoch, last=end.last, seen=seen)
            self._recent, self._epoch = None, 0
            self._log += 1
            self.changed.notify()

    def _abort_stalled_streams(self) -> None:
        now = asyncio.get_running_loop().time()
        for stream in list(self._streams):
            if stream.sending_since is not None and now - stream.sending_since > self.limits.stall_s:
                stream.abort()

    async def _end_when_draining(self) -> None:
        await self.draining.wait()
        self.changed.notify()
        await asyncio.sleep(_DRAIN_GRACE_S)
        for stream in list(self._streams):
            stream.abort()

    def _report_failure(self, error: Exception) -> None:
        if self._failing:  # count every failure, log once per outage
            self.metrics.ignored_failures.labels("event_feed").inc()
        else:
            survived(self.metrics, "event_feed", error, "http.event_feed_failed")
        self._failing = True
