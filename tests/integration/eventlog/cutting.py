"""A proxy between a client and PostgreSQL that cuts the connection in the middle of a chosen request."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

SOCKET = ".s.PGSQL.5432"


class Cut(StrEnum):
    """The moment of the request at which the connection ends."""

    BEFORE_THE_REQUEST = "before the request"
    WITHIN_THE_REQUEST = "within the request"
    BEHIND_THE_REQUEST = "behind the request"  # the server executes the request, its answer is lost
    BEFORE_THE_ANSWER = "before the answer"  # the server is done


class CuttingProxy:
    """Forwards bytes until a request contains the marker that `cut` has set."""

    def __init__(self, server_url: str, directory: Path) -> None:
        self._server = urlsplit(server_url)
        self.url = self._server._replace(netloc=self._user(), query=f"host={quote(str(directory), safe='')}").geturl()
        self._marker: bytes | None = None
        self._how = Cut.BEFORE_THE_ANSWER
        self._refusing = False
        self.cuts = 0

    def cut(self, marker: bytes, how: Cut) -> None:
        """Cuts the connection of the next request that contains `marker`, once."""
        self._marker, self._how = marker, how

    def refuse(self) -> None:
        """From now on accepts no connection."""
        self._refusing = True

    def _user(self) -> str:
        return f"{self._server.netloc.rpartition('@')[0]}@"

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self._refusing:
            to_client.transport.abort()
            return
        server, to_server = await self._connect()
        answers = asyncio.create_task(_pass_on(server, to_client))
        try:
            while request := await client.read(1 << 20):
                if self._marker is not None and self._marker in request:
                    answers.cancel()
                    await self._cut(request, server, to_server)
                    break
                to_server.write(request)
                await to_server.drain()
        finally:
            answers.cancel()
            to_client.transport.abort()
            to_server.transport.abort()

    async def _cut(self, request: bytes, server: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        self._marker = None
        self.cuts += 1
        match self._how:
            case Cut.BEFORE_THE_REQUEST:
                pass
            case Cut.WITHIN_THE_REQUEST:
                to_server.write(request[: len(request) // 2])
                await to_server.drain()
            case Cut.BEHIND_THE_REQUEST:
                to_server.write(request)
                await to_server.drain()
                to_server.close()  # unlike an abort, it first sends everything that was written
                await to_server.wait_closed()
            case Cut.BEFORE_THE_ANSWER:
                to_server.write(request)
                await to_server.drain()
                assert await server.read(1 << 20)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        directory = parse_qs(self._server.query).get("host")
        if directory:
            return await asyncio.open_unix_connection(f"{directory[0]}/{SOCKET}")
        return await asyncio.open_connection(self._server.hostname, self._server.port or 5432)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 20):
            target.write(data)
            await target.drain()
    target.close()


@contextlib.asynccontextmanager
async def cutting_proxy(server_url: str) -> AsyncGenerator[CuttingProxy, None]:
    """A proxy that listens on a socket of its own while the block lasts."""
    directory = Path(tempfile.mkdtemp(prefix="wvs-cut-", dir="/tmp"))
    proxy = CuttingProxy(server_url, directory)
    listener = await asyncio.start_unix_server(proxy.serve, directory / SOCKET)
    try:
        yield proxy
    finally:
        listener.close()
        shutil.rmtree(directory)
