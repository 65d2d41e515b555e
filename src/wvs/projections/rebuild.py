"""`wvs projections rebuild`: builds the read models from the log beside the live tables, and swaps them in.

Commands and readers continue meanwhile. Only the swap stops commands, while it replays the last events; readers wait
for the renaming alone. Each batch is committed together with the position that it leads to, so that a rebuild that was
killed continues there.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import asyncpg
import structlog
from msgspec import Struct

from wvs.background import stop
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.reading.follower import Page, read_page, safe_position
from wvs.postgres.compatibility import check_schema
from wvs.postgres.locks import REBUILD
from wvs.postgres.pool import Connection, close, connect
from wvs.postgres.queries import sql
from wvs.projections.replaying import BATCH, Tables, apply, changes_of, tables_of

CLOSE_ENOUGH: Final = 500
"""Events that the swap may have to replay: some 50 ms in which commands wait."""

_SCHEMA: Final = "wvs_fresh"
_CHANGED: Final = "WV002"
"""The SQLSTATE of wvs.finish_rebuild for tables whose columns differ from the live ones."""

_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '1s'"
_PAUSE_S: Final = 0.5

_BEGIN: Final = sql("begin_rebuild")
_UPDATE: Final = sql("update_fresh_rows")
_IS_AT: Final = sql("rebuild_is_at")
_INDEX: Final = sql("index_fresh_tables")
_STOP_COMMANDS: Final = sql("stop_commands")
_FINISH: Final = sql("finish_rebuild")
_DROP: Final = sql("drop_retired")
_TRY_LOCK: Final = sql("try_session_lock")
_PAGE: Final = sql("log_page")

log = structlog.get_logger(__name__)


class RebuildRunsError(Exception):
    """Another rebuild is running on this database."""


class SwapBlockedError(Exception):
    """Other sessions kept the tables locked for too long; the rebuilt rows are kept."""


class SchemaChangedError(Exception):
    """A migration changed the read models during the rebuild; the next rebuild starts from the beginning."""


class Rebuilt(Struct, frozen=True):
    """What a rebuild did: the events that it replayed, its first position, and its last one."""

    events: int
    began_at: int
    position: int


ReportProgress = Callable[[str, int, int], None]
"""Called with the phase, the position that was reached, and the one to reach."""


async def rebuild(url: str, mapper: EventMapper, progress: ReportProgress, *, swap_patience_s: float = 60.0) -> Rebuilt:
    """Replaces the read models by rows that are projected from the log.

    Raises `PoisonedEventError` at an event that cannot be read, `RebuildRunsError`, `SwapBlockedError`,
    `SchemaChangedError`, `SchemaTooOld`, `SchemaTooNew`, or what the connection raises. The live tables are then
    unchanged, and the next call continues where this one ended.
    """
    writer = await connect(url, application_name="wvs-rebuild", command_timeout_s=None)
    reader = await connect(url, application_name="wvs-rebuild", command_timeout_s=None)
    try:
        await check_schema(writer)
        if not await writer.fetchval(_TRY_LOCK, REBUILD, 0):
            raise RebuildRunsError("Another rebuild is running on this database. Wait until it ends, or stop it.")
        return await _Rebuild(reader, writer, mapper, progress).run(swap_patience_s)
    finally:
        await close(writer)
        await close(reader)


class _Rebuild:
    def __init__(self, reader: Connection, writer: Connection, mapper: EventMapper, progress: ReportProgress) -> None:
        self._reader = reader
        self._writer = writer
        self._mapper = mapper
        self._progress = progress
        self._tables: Tables
        self._position = 0
        self._events = 0

    async def run(self, swap_patience_s: float) -> Rebuilt:
        async with self._writer.transaction():
            self._position = began_at = await self._writer.fetchval(_BEGIN, _fingerprint())
        self._tables = await tables_of(self._writer, _SCHEMA, _UPDATE)
        await self._catch_up("replay")
        self._progress("indexes", self._position, self._position)
        await self._writer.execute(_INDEX)
        await self._swap(swap_patience_s)
        await self._writer.execute(_DROP)
        return Rebuilt(self._events, began_at, self._position)

    async def _catch_up(self, phase: str) -> None:
        """Replays events until fewer than `CLOSE_ENOUGH` are left."""
        end = await safe_position(self._reader)
        async for page in self._pages():
            if page.rows:
                async with self._writer.transaction():
                    await self._replay(page)
            end = max(end, page.safe)
            self._progress(phase, self._position, end)

    async def _pages(self) -> AsyncGenerator[Page]:
        """Yields one page while the next is being read."""
        after = self._position
        ahead = asyncio.ensure_future(read_page(self._reader, after, BATCH))
        try:
            while True:
                page = await ahead
                after = page.safe
                if len(page.rows) < CLOSE_ENOUGH:
                    yield page
                    return
                ahead = asyncio.ensure_future(read_page(self._reader, after, BATCH))
                yield page
        finally:
            await stop(ahead)

    async def _replay(self, page: Page) -> None:
        await apply(self._writer, self._tables, changes_of(self._mapper, page.rows))
        await self._writer.execute(_IS_AT, page.safe)
        self._position = page.safe
        self._events += len(page.rows)

    async def _swap(self, patience_s: float) -> None:
        ends = asyncio.get_running_loop().time() + patience_s
        while True:
            await self._catch_up("swap")
            position, events = self._position, self._events
            try:
                async with self._writer.transaction():
                    await self._writer.execute(_LOCK_TIMEOUT)
                    await self._writer.execute(_STOP_COMMANDS)
                    await self._replay(await self._rest())
                    await self._writer.execute(_FINISH)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
                self._position, self._events = position, events
                log.info("rebuild_swap_waits", error=str(error))
                if asyncio.get_running_loop().time() > ends:
                    raise SwapBlockedError(
                        f"Other sessions locked the read models for {patience_s:g} s (a dump, or an open transaction). "
                        "The rebuilt rows are kept: end those sessions and rebuild again, which swaps them in."
                    ) from error
                await asyncio.sleep(_PAUSE_S)
            except asyncpg.PostgresError as error:
                if error.sqlstate != _CHANGED:
                    raise
                raise SchemaChangedError(
                    "A migration changed the read models meanwhile. The live tables are unchanged: rebuild again."
                ) from error
            else:
                return

    async def _rest(self) -> Page:
        """The events that are left. No command is running, so that all events before the swap are visible."""
        rows = [tuple(row) for row in await self._writer.fetch(_PAGE, self._position, None)]
        return Page(rows, rows[-1][0] if rows else self._position)


def _fingerprint() -> str:
    """Identifies the code that makes the rows from the log: a rebuild does not continue rows of another release."""
    digest = sha256()
    for package in ("wvs.domain", "wvs.eventlog", "wvs.readmodel", "wvs.projections"):
        for source in sorted(_sources(files(package)), key=lambda entry: entry.name):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _sources(directory: Traversable) -> list[Traversable]:
    return [entry for entry in directory.iterdir() if entry.name.endswith(".py")]
