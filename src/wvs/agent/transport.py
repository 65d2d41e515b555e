"""HTTP for one agent: one kept connection, one request at a time, and every call can be cancelled at once.

h11 on asyncio's streams, which the service brings along anyway: a blocking client in a thread cannot be told to stop
waiting, and an agent whose answer is late has to thaw by itself instead.
"""

import asyncio
import ssl
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import h11
import msgspec

from wvs.agent.errors import AgentError, Rejected, Unreachable
from wvs.agent.protocol import ProblemDocument

_CHUNK: Final = 65536
_LARGEST: Final = 1 << 20

T = TypeVar("T")


class Transport:
    """Requests to the API at `url` (http or https, with a path if it is behind a proxy)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AgentError(f"{url!r} is no http or https URL")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._name = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._state = h11.Connection(h11.CLIENT)

    async def call(self, method: str, path: str, answer: type[T], body: Any = None) -> T:
        """The answer's body as `answer`.

        Raises `Unreachable` if there is none that counts, and `Rejected` for a problem. Whether a request without an
        answer was done is not known.
        """
        try:
            status, content = await self._exchange(method, path, None if body is None else msgspec.json.encode(body))
        except (OSError, h11.ProtocolError, asyncio.IncompleteReadError) as error:
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
            raise Unreachable(f"something else answers: {error}") from error

    def close(self) -> None:
        """Lets go of the connection; the next call makes a new one."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, method: str, path: str, content: bytes | None) -> tuple[int, bytes]:
        reader, writer = self._streams or await self._connected()
        headers = [("Host", self._name), ("Accept", "application/json"), ("User-Agent", "wvs-agent")]
        if content is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        state = self._state
        writer.write(state.send(h11.Request(method=method, target=self._prefix + path, headers=headers)) or b"")
        if content is not None:
            writer.write(state.send(h11.Data(data=content)) or b"")
        writer.write(state.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        answer = await self._answer(reader)
        if state.our_state is h11.DONE and state.their_state is h11.DONE:
            state.start_next_cycle()
        else:
            self.close()
        return answer

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._state = h11.Connection(h11.CLIENT)
        self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        return self._streams

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        status, body = 0, bytearray()
        while True:
            event = self._state.next_event()
            if event is h11.NEED_DATA:
                self._state.receive_data(await reader.read(_CHUNK))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _LARGEST:
                    raise h11.RemoteProtocolError("the answer does not end")
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(body)
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("the connection was closed before an answer came")


def _rejected(status: int, content: bytes) -> AgentError:
    try:
        problem = msgspec.json.decode(content, type=ProblemDocument)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Unreachable(f"something else answers {status}")
    return Rejected(status, problem.code, problem.detail or f"HTTP {status}", problem.hint)
