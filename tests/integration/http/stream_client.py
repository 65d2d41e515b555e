"""A client of `GET /v1/events/stream` that reads only on request and can reconnect with its last id."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

CUT = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)


class StreamClient:
    """One stream. `last_id` is the Last-Event-ID of a browser; `heartbeats` counts the heartbeats."""

    def __init__(
        self, url: str, last_id: str | None = None, *, receive_buffer: int | None = None, **query: Any
    ) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._query = urlencode(query, doseq=True)
        self._receive_buffer = receive_buffer
        self.last_id = last_id
        self.heartbeats = 0
        self.ended = False
        self.head = ""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def open(self) -> None:
        """Connects and reads the head of the answer. Raises `AssertionError`, with the answer, unless it is 200."""
        raw = socket.socket()
        if self._receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, self._address)
        limit = self._receive_buffer or 2**16
        self._reader, self._writer = await asyncio.open_connection(sock=raw, limit=limit)
        resume = "" if self.last_id is None else f"Last-Event-ID: {self.last_id}\r\n"
        target = f"/v1/events/stream?{self._query}".rstrip("?")
        self._writer.write(f"GET {target} HTTP/1.1\r\nHost: {self._address[0]}\r\n{resume}\r\n".encode())
        self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        if not self.head.startswith("HTTP/1.1 200"):
            raise AssertionError(self.head + (await self._reader.read(10_000)).decode())

    def close(self) -> None:
        """Disconnects at once."""
        self._writer.transport.abort()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yields the events until the server ends the stream (`ended`) or the connection breaks."""
        pending = b""
        with suppress(*CUT):
            while chunk := await self._chunk():
                *blocks, pending = (pending + chunk).split(b"\n\n")
                for block in blocks:
                    event = self._read(block)
                    if event is not None:
                        yield event
            self.ended = True

    async def take(self, count: int, timeout_s: float = 60) -> list[dict[str, Any]]:
        """The next `count` events. Raises `TimeoutError` if they do not arrive."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(timeout_s):
            async for event in self.events():
                found.append(event)
                if len(found) == count:
                    return found
        raise AssertionError(f"the stream ended after {len(found)} of {count} events")

    async def until_heartbeat(self, timeout_s: float = 60) -> None:
        """Returns at the next heartbeat. No event may arrive before it."""
        before = self.heartbeats
        async with asyncio.timeout(timeout_s):
            pending = b""
            while self.heartbeats == before:
                *blocks, pending = (pending + await self._chunk()).split(b"\n\n")
                assert [event for event in map(self._read, blocks) if event is not None] == []

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    def _read(self, block: bytes) -> dict[str, Any] | None:
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
        self.last_id = fields.get("id", self.last_id)
        if "data" not in fields:
            self.heartbeats += 1
            return None
        event: dict[str, Any] = json.loads(fields["data"])
        assert event["position"] == fields["id"]
        return event


async def follow(url: str, last_id: str, got: list[str], **query: Any) -> None:
    """Follows without end, reconnecting as a browser does; appends the position of every event to `got`."""
    while True:
        client = StreamClient(url, last_id, **query)
        with suppress(*CUT, AssertionError):
            await client.open()
            async for event in client.events():
                got.append(event["position"])
                last_id = event["position"]
            client.close()
        await asyncio.sleep(0.1)
