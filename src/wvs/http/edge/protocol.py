"""uvicorn's HTTP/1.1 protocol with the limits it lacks: time and bytes for the headers, bytes for a whole request."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from wvs.domain.errors import ErrorCode
from wvs.http.edge.boundary import ABORT, Boundary
from wvs.http.edge.corked import CorkedTransport
from wvs.http.problems import problem as problems
from wvs.http.wire.context import read_context


class HeadersTooLargeError(ValueError):
    """Raised in a callback of the parser to make the parser give up."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection, with a problem, if the headers of its next request arrive too late or are too large.

    The deadline starts when the connection is accepted, or with the first byte after an answer. Between the two
    uvicorn's keep-alive timer bounds the idle time; any first byte stops that timer.
    """

    def __init__(self, boundary: Boundary, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = boundary.limits
        self._traffic = boundary.traffic
        self._too_large = f"the request line and the headers have more than {self._limits.header_bytes} bytes"
        self._awaiting_headers = True
        self._has_begun = False  # the next request, which may come before the answer to the one before it has ended
        self._received_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._fault = ""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport, self.loop)))
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > self._limits.request_bytes:
            self.transport.abort()
            return
        if self._header_timer is None and self._is_idle():
            self._arm()
        super().data_received(data)
        if (
            self._awaiting_headers
            and self._received_bytes > self._limits.header_bytes
            and not self.transport.is_closing()
        ):
            self._refuse(self._too_large)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = True
        extensions: dict[str, Any] = {ABORT: self.transport.abort}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        self._awaiting_headers = self._has_begun = False
        self._disarm()
        if self._received_bytes > self._limits.header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._limits.header_bytes:
                self._fault = self._too_large
                raise HeadersTooLargeError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._awaiting_headers = True
        self._received_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_begun and self._is_idle() and not self.transport.is_closing():
            self._arm()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for bytes that are not HTTP. The answer is a problem like any other."""
        self._refuse(self._fault or "the bytes on this connection are not an HTTP/1.1 request")

    def _unsupported_upgrade_warning(self) -> None:
        # The service ignores the upgrade (RFC 9110 §7.8), but the parser cannot read another request after it.
        if self.cycle is not None and not self.cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison]
            self.cycle.keep_alive = False

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    def _arm(self) -> None:
        self._disarm()
        self._header_timer = self.loop.call_later(self._limits.header_deadline_s, self._headers_are_late)

    def _disarm(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_are_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._received_bytes or self._has_begun:
            self._refuse(f"the headers did not arrive within {self._limits.header_deadline_s:g} s")
        else:
            self.transport.close()

    def _refuse(self, detail: str) -> None:
        if not self._is_idle() and (self.cycle.response_started or not self.cycle.more_body):
            # The fault follows a request that is still being answered. Finish that answer, then close the connection.
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        problem = problems.Problem(
            ErrorCode.INVALID_REQUEST, detail, "Send a valid HTTP/1.1 request within the limits."
        )
        context = read_context({})
        body = problem.body(context.request_id)
        head = [
            STATUS_LINE[problem.status],
            b"content-type: " + problems.MEDIA_TYPE.encode() + b"\r\n",
            b"content-length: %d\r\n" % len(body),
            b"x-request-id: " + context.request_id.encode() + b"\r\n",
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join(head) + body)
        self.transport.close()
        self._traffic.record_unparsed(context, problem.status, problem.code, detail)
