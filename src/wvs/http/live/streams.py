"""One client's stream of events, as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import structlog
from litestar import Response
from msgspec import Struct

from wvs.background import background
from wvs.http.edge.boundary import ABORT, IS_HEAD
from wvs.http.live.feed import Feed, StreamStart
from wvs.http.wire.asgi import Message, Receive, Scope, Send
from wvs.http.wire.positions import format_position
from wvs.telemetry.failures import survived

MEDIA_TYPE: Final = "text/event-stream"

_RECONNECT_MS: Final = 1000
_HEADERS: Final = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_DISCONNECT_GRACE_S: Final = 5.0

_log = structlog.get_logger("wvs.http")


class StreamFilter(Struct, frozen=True):
    """Which events a stream sends: of one workspace or of all, of some types or of all."""

    workspace_id: UUID | None = None
    types: frozenset[str] = frozenset()


class EventStream:
    """An ASGI answer that lasts until the client disconnects, the service drains, or the log is replaced.

    A client that reads nothing blocks only this stream: the send waits for its socket. When the client reads again, the
    stream takes the events that it missed from the log.
    """

    def __init__(self, feed: Feed, start: StreamStart, wanted: StreamFilter) -> None:
        self.sending_since: float | None = None
        self._feed = feed
        self._start = start
        self._wanted = wanted
        self._position = start.position
        self._abort: Callable[[], None] | None = None
        self._stalled = False
        self._failing = False
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extensions: dict[str, Any] = scope.get("extensions") or {}
        self._abort = extensions.get(ABORT)
        with self._feed.joined(self):
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            if extensions.get(IS_HEAD):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            self._feed.metrics.event_stream_ends.labels(await self._run(receive, send)).inc()

    def abort(self) -> None:
        """Aborts the connection and drops the data that is not sent yet."""
        self._stalled = True
        if self._abort is not None:
            self._abort()

    async def _run(self, receive: Receive, send: Send) -> str:
        """Sends until the stream ends. Returns the reason of the end."""
        async with background(_disconnected(receive), self._pump(send)) as (leaving, pumping):
            await asyncio.wait({leaving, pumping}, return_when=asyncio.FIRST_COMPLETED)
            if pumping.done():
                pumping.result()
            if self._stalled:
                # The server notices the abort in its next round. Before that, it would report an incomplete answer.
                await asyncio.wait({leaving}, timeout=_DISCONNECT_GRACE_S)
                return "stalled"
            return "left" if leaving.done() else "service"

    async def _pump(self, send: Send) -> None:
        await self._send(send, b"retry: %d\n%b" % (_RECONNECT_MS, self._heartbeat()))
        while not self._feed.must_end(self._start):
            changed = self._feed.changed.next()
            before = self._position
            if text := await self._next_text():
                await self._send(send, text)
            elif self._position == before:
                await self._wait_for_events(send, changed)
        await self._send(send, b": the service ends this stream; reconnect with Last-Event-ID\n\n", last=True)

    async def _wait_for_events(self, send: Send, changed: asyncio.Event) -> None:
        if asyncio.get_running_loop().time() - self._sent_at >= self._feed.limits.heartbeat_s:
            await self._send(send, self._heartbeat())
        await changed.wait()

    async def _next_text(self) -> bytes:
        """The next events that the filter selects. Advances the position in any case."""
        try:
            batch = await self._feed.after(self._start, self._position, self._wanted.workspace_id)
        except Exception as error:  # noqa: BLE001 - an outage: the stream stays open and tries again at the next tick
            if self._failing:  # counted every time, logged once an outage
                self._feed.metrics.ignored_failures.labels("event_stream").inc()
            else:
                survived(self._feed.metrics, "event_stream", error, "http.event_stream_failed")
            self._failing = True
            return b""
        self._failing = False
        self._position = batch.position
        wanted = self._wanted
        return b"".join(
            entry.text
            for entry in batch.entries
            if (wanted.workspace_id in (None, entry.workspace_id)) and (not wanted.types or entry.type in wanted.types)
        )

    def _heartbeat(self) -> bytes:
        # An id without data is not an event, but a client that reconnects continues after it. Without it, a client with
        # a narrow filter would make the service read all filtered events again.
        return b": alive\nid: %b\n\n" % format_position(self._start.epoch, self._position).encode("ascii")

    async def _send(self, send: Send, body: bytes, *, last: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        self.sending_since = now
        await send({"type": "http.response.body", "body": body, "more_body": not last})
        self.sending_since = None
        self._sent_at = now


class StreamResponse(Response[bytes]):
    """Lets a handler answer with a stream. An error before the first byte is still answered as a problem."""

    def __init__(self, stream: EventStream) -> None:
        super().__init__(b"", media_type=MEDIA_TYPE)
        self._stream = stream

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """The stream itself."""
        return self._stream


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has closed its connection."""
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return
