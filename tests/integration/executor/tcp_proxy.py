"""A TCP proxy in front of the server's Unix socket, to cut an executor off from its database."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Self
from urllib.parse import parse_qs, urlsplit


class TcpProxy:
    """Forwards connections until it is cut; then it drops them all and refuses new ones. `delay_s`: of each way."""

    def __init__(self, url: str, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._parts = urlsplit(url)
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[Self]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.cut()
            server.close()

    @property
    def url(self) -> str:
        """The database's URL through the proxy."""
        return self._parts._replace(netloc=f"{self._parts.username}@127.0.0.1:{self.port}", query="").geturl()

    def cut(self) -> None:
        self._cut = True
        for writer in self._open:
            writer.transport.abort()

    def restore(self) -> None:
        self._cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        server_reader, server_writer = await self._connect()
        self._open |= {writer, server_writer}
        await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))
        self._open -= {writer, server_writer}

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        socket_dir = parse_qs(self._parts.query).get("host")
        if socket_dir:
            port = parse_qs(self._parts.query).get("port", ["5432"])[0]
            return await asyncio.open_unix_connection(f"{socket_dir[0]}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._delay_s:
                    loop.call_later(self._delay_s, self._write, writer, data)
                else:
                    writer.write(data)
                    await writer.drain()
        loop.call_later(self._delay_s, writer.close)

    def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)
