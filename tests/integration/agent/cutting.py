"""A proxy in front of the API that can stop all traffic without closing a connection, like a lost network."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit


class Network:
    """Forwards bytes while `up` is set. Other bytes wait, as retransmitted packets would."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.up = asyncio.Event()
        self.up.set()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["Network"]:
        """Outside the block it refuses every connection. A second block has the address of the first."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", urlsplit(self.url).port or 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.up.set()
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        await self.up.wait()
        server_in, server_out = await asyncio.open_connection(self._target.hostname, self._target.port)
        for source, target in ((client_in, server_out), (server_in, client_out)):
            self._tasks.add(asyncio.create_task(self._pass(source, target)))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await self.up.wait()
                target.write(data)
                await target.drain()
        target.transport.abort()
