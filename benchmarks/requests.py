"""An HTTP/1.1 client that needs almost no CPU, so that a benchmark measures the server."""

import asyncio
import json
import uuid
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class Client:
    """One kept-alive connection that sends one request after the other."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def post(self, path: str, body: bytes, *, prefer: str = "") -> bytes:
        """The answer's body; raises `RuntimeError` unless the API accepted the request."""
        wait = f"Prefer: {prefer}\r\n" if prefer else ""
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n{wait}"
            f"Idempotency-Key: {uuid.uuid4().hex}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return await self._answer()

    async def post_json(self, path: str, body: bytes, *, prefer: str = "") -> dict[str, Any]:
        """The answer's document."""
        return json.loads(await self.post(path, body, prefer=prefer))

    async def get(self, path: str) -> bytes:
        """The answer's body."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        return await self._answer()

    async def _answer(self) -> bytes:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{head.decode()}{body.decode()}")
        return body
