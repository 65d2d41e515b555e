"""HTTP for one agent: one persistent connection, one request at a time, and every call can be cancelled at once.

It is a protocol on asyncio's transports, with the HTTP parser that the service uses too. A blocking client in a thread
could not be cancelled, but an agent whose answer is late has to stop waiting and thaw. Twenty agents of one host answer
within the same few milliseconds, so that the time of each counts twenty times.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Final, TypeVar, cast

import httptools
import msgspec

from wvs.agent.errors import AgentError, Rejected, Unreachable
from wvs.agent.protocol import ServiceRefusal
from wvs.endpoint import InvalidEndpoint, endpoint_of, tls_context

_MAX_ANSWER_BYTES: Final = 1 << 20

T = TypeVar("T")


class BadAnswer(Exception):
    """The answer violates HTTP/1.1, or ended too early."""


class PreparedRequest(msgspec.Struct, frozen=True):
    """A whole request, credentials included, for a process that has no transport. The answer ends its connection."""

    host: str
    port: int
    tls: bool
    content: bytes


class AgentTransport:
    """Requests to the API at `url` (http or https, with a path if it is behind a proxy).

    `headers`, each `NAME: VALUE`, and those of WVS_HEADERS go with each request.
    """

    def __init__(self, url: str, headers: Iterable[str] = ()) -> None:
        try:
            endpoint = endpoint_of(url, headers)
            self._tls = tls_context() if endpoint.secure else None
        except InvalidEndpoint as error:
            raise AgentError(f"{error} ({error.help})") from error
        self._host = endpoint.host
        self._port = endpoint.port or (443 if self._tls else 80)
        self._prefix = endpoint.prefix
        own = {"Host": endpoint.authority, "Accept": "application/json", "User-Agent": "wvs-agent"}
        lines = {**endpoint.headers, **own}.items()
        self._headers = " HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines)
        self._connection: _Connection | None = None

    def authenticate(self, secret: str) -> None:
        """Sends the session's secret with every later request."""
        self._headers += f"X-Session-Secret: {secret}\r\n"

    async def call(self, method: str, path: str, answer: type[T], body: Any = None) -> T:
        """Sends a request and returns the body of the answer, decoded as `answer`.

        Raises `Rejected` if the service answers with a problem, and `Unreachable` if no valid answer comes: then the
        service may or may not have carried out the request.
        """
        try:
            status, content = await self._exchange(method, path, None if body is None else msgspec.json.encode(body))
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"its certificate is not trusted: {error.verify_message}; if a private CA issued it, "
                "SSL_CERT_FILE names the file with the certificate of the CA"
            ) from error
        except (OSError, BadAnswer) as error:
            self.close()
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise
        if status >= 500:
            raise Unreachable(f"the service answers {status}")
        if status >= 300:
            raise _rejected(status, content)
        try:
            return msgspec.json.decode(content, type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreachable(f"the answer is not from WVS: {error}") from error

    def prepare(self, method: str, path: str) -> PreparedRequest:
        """The request that `call` would send."""
        content = f"{method} {self._prefix}{path}{self._headers}Connection: close\r\n\r\n"
        return PreparedRequest(self._host, self._port, self._tls is not None, content.encode("ascii"))

    def close(self) -> None:
        """Closes the connection. The next call opens a new one."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _exchange(self, method: str, path: str, content: bytes | None) -> tuple[int, bytes]:
        request = f"{method} {self._prefix}{path}{self._headers}"
        if content is not None:
            request += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = self._connection = await self._connect()
        answer = await connection.request(request.encode("ascii") + b"\r\n" + (content or b""))
        if not connection.is_open:
            self.close()
        return answer

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection


class _Connection(asyncio.Protocol):
    """One connection. `is_open` is true while another request may be sent on it."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body = bytearray()
        self._received_bytes = 0
        self._has_length = self._ends_at_close = False

    async def request(self, request: bytes) -> tuple[int, bytes]:
        """Sends a request; returns status and body of the answer. Raises `OSError` or `BadAnswer`."""
        if self._transport.is_closing():
            raise BadAnswer("the connection was closed before the request was sent")
        self._answer = asyncio.get_running_loop().create_future()
        self._received_bytes = 0
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def abort(self) -> None:
        """Closes the connection at once."""
        self.is_open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports inherit from no class of asyncio
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.abort()  # no request is open
            return
        self._received_bytes += len(data)
        if self._received_bytes > _MAX_ANSWER_BYTES:
            self._fail(BadAnswer(f"the answer is longer than {_MAX_ANSWER_BYTES} bytes"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BadAnswer(f"{type(error).__name__}: {error}"))

    def eof_received(self) -> None:
        self._on_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(exc)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._answer is None or self._answer.done():
            self.is_open = False  # an answer without a request: do not trust what follows
        self._body.clear()
        self._has_length = self._ends_at_close = False

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Called by the parser."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._ends_at_close = not self._has_length

    def on_body(self, part: bytes) -> None:
        """Called by the parser."""
        self._body += part

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._parser.get_status_code() < 200:
            return  # an interim response; the final one follows (RFC 9110 §15.2)
        self.is_open = self.is_open and self._parser.should_keep_alive()
        self._settle()

    def _on_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._answer is None or self._answer.done():
            return
        if error is None and self._ends_at_close and self._parser.get_status_code() >= 200:
            self._settle()  # without a length the body ends with the connection (RFC 9112 §6.3)
        else:
            lost = BadAnswer("the connection was closed before the answer was complete")
            self._fail(error if isinstance(error, OSError) else lost)

    def _settle(self) -> None:
        assert self._answer is not None
        if not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), bytes(self._body)))

    def _fail(self, error: BaseException) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _rejected(status: int, content: bytes) -> AgentError:
    try:
        problem = msgspec.json.decode(content, type=ServiceRefusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        hint = "; WVS_HEADERS has the credentials for a proxy" if status in (401, 403, 407) else ""
        return Unreachable(f"the answer {status} is not from WVS{hint}")
    return Rejected(status, problem.code, problem.detail or f"HTTP {status}", problem.hint)
