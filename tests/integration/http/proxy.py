"""A proxy in front of Postgres that cuts a command's connection before it arrives, or after it was committed."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from enum import Enum, auto
from urllib.parse import parse_qs, urlsplit

# The outcome in the answer of wvs.commit_command_v2, and a part of its request: every task id is announced in a hash.
_COMMITTED = b"committed"
_BIND = b"B"


class Cut(Enum):
    """When to cut: the command has not reached Postgres, or its answer has not reached the client."""

    BEFORE = auto()
    AFTER = auto()


class CuttingProxy:
    """Forwards everything until it is armed. Then it cuts the next commits."""

    def __init__(self, database_url: str) -> None:
        self._target = database_url
        self._armed: list[Cut] = []
        self.cuts = 0
        self.refusing = False
        self.url = ""

    def arm(self, *cuts: Cut) -> None:
        """Cuts the next commits, one for each of `cuts`."""
        self._armed.extend(cuts)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["CuttingProxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        parts = urlsplit(self._target)
        user = parts.netloc.rpartition("@")[0]
        self.url = f"postgresql://{user}@127.0.0.1:{port}{parts.path}"
        async with server:
            yield self

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._target)
        query = parse_qs(parts.query)
        if "host" in query:
            port = query.get("port", ["5432"])[0]
            return await asyncio.open_unix_connection(f"{query['host'][0]}/.s.PGSQL.{port}")
        return await asyncio.open_connection(parts.hostname, parts.port or 5432)

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        if self.refusing:
            client_out.transport.abort()
            return
        server_in, server_out = await self._connect()
        ways = (
            asyncio.create_task(self._pass(client_in, server_out, Cut.BEFORE)),
            asyncio.create_task(self._pass(server_in, client_out, Cut.AFTER)),
        )
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (server_out, client_out):
            end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, cut: Cut) -> None:
        while data := await source.read(65_536):
            if self._armed and self._armed[0] is cut and self._is_commit(data, cut):
                self._armed.pop(0)
                self.cuts += 1
                return
            target.write(data)
            await target.drain()

    def _is_commit(self, data: bytes, cut: Cut) -> bool:
        if cut is Cut.AFTER:
            return _COMMITTED in data
        return data.startswith(_BIND) and b'"type":' in data
