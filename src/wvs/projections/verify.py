"""`wvs projections verify`: replays the log and compares the result with the live read models row by row.

Both are read in one snapshot of the database, so that commands may continue meanwhile. The replayed rows are in
temporary tables: the memory does not grow with the log. The snapshot holds vacuum back while it lasts.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
from msgspec import Struct

from wvs.background import stop
from wvs.eventlog.codec import EventMapper
from wvs.postgres.compatibility import check_schema
from wvs.postgres.pool import Connection, close, connect
from wvs.postgres.queries import sql
from wvs.projections.rebuild import ReportProgress
from wvs.projections.replaying import BATCH, Row, apply, changes_of, tables_of
from wvs.readmodel.changes import KEYS, Table

MAX_DIFFERENCES: Final = 100
"""Differing rows that are listed for each table; all are counted."""

_PAGE: Final = sql("log_page")
_LAST: Final = sql("log_max_position")
_MAKE: Final = sql("make_replayed_tables")
_UPDATE: Final = sql("update_replayed_rows")
_SCHEMA: Final = sql("temporary_schema")
_EXPORT: Final = sql("export_snapshot")
_COUNT: Final = {table: sql(f"count_{table}") for table in KEYS}
_DIFFERING: Final = {table: sql(f"differing_{table}") for table in KEYS}
_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ"


class Difference(Struct, frozen=True):
    """A live row that differs from the log: the differing columns of both, or None where there is no such row."""

    table: Table
    key: dict[str, Any]
    live: dict[str, Any] | None
    log: dict[str, Any] | None


class Verified(Struct, frozen=True):
    """The result of a verification. `differing` counts the rows of each table; `differences` lists the first ones."""

    events: int
    position: int
    rows: dict[Table, int]
    differing: dict[Table, int]
    differences: list[Difference]

    @property
    def equal(self) -> bool:
        """Whether every row agrees with the log."""
        return not any(self.differing.values())


async def verify(url: str, mapper: EventMapper, progress: ReportProgress) -> Verified:
    """Compares log and rows; raises `PoisonedEventError` at an unreadable event, or what the connection raises."""
    reader = await connect(url, application_name="wvs-verify", command_timeout_s=None)
    writer = await connect(url, application_name="wvs-verify", command_timeout_s=None)
    try:
        await check_schema(reader)
        for connection in (reader, writer):
            await connection.execute("SET idle_in_transaction_session_timeout = '10min'")
        return await _Verification(reader, writer, mapper, progress).run()
    finally:
        await close(writer)
        await close(reader)


class _Verification:
    def __init__(self, reader: Connection, writer: Connection, mapper: EventMapper, progress: ReportProgress) -> None:
        self._reader = reader
        self._writer = writer
        self._mapper = mapper
        self._progress = progress

    async def run(self) -> Verified:
        await self._reader.execute(_SNAPSHOT)
        snapshot: str = await self._reader.fetchval(_EXPORT)
        await self._writer.execute(_SNAPSHOT)
        await self._writer.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        events, position = await self._replay()
        return await self._compared(events, position)

    async def _replay(self) -> tuple[int, int]:
        await self._writer.execute(_MAKE)
        schema: str = await self._writer.fetchval(_SCHEMA)
        tables = await tables_of(self._writer, schema, _UPDATE)
        end: int = await self._reader.fetchval(_LAST)
        events = position = 0
        async for rows in self._pages():
            await apply(self._writer, tables, changes_of(self._mapper, rows))
            events, position = events + len(rows), rows[-1][0]
            self._progress("replay", position, end)
        return events, position

    async def _pages(self) -> AsyncGenerator[list[Row]]:
        """Yields one page while the next is being read."""
        ahead = asyncio.ensure_future(self._reader.fetch(_PAGE, 0, BATCH))
        try:
            while rows := [tuple(row) for row in await ahead]:
                ahead = asyncio.ensure_future(self._reader.fetch(_PAGE, rows[-1][0], BATCH))
                yield rows
        finally:
            await stop(ahead)

    async def _compared(self, events: int, position: int) -> Verified:
        rows: dict[Table, int] = {}
        differing: dict[Table, int] = {}
        found: list[Difference] = []
        for number, table in enumerate(KEYS):
            self._progress("compare", number, len(KEYS))
            rows[table] = await self._writer.fetchval(_COUNT[table])
            pairs = await self._writer.fetch(_DIFFERING[table], MAX_DIFFERENCES)
            differing[table] = pairs[0]["differing"] if pairs else 0
            found += [_difference(table, pair["live"], pair["log"]) for pair in pairs]
        self._progress("compare", len(KEYS), len(KEYS))
        return Verified(events, position, rows, differing, found)


def _difference(table: Table, live_row: bytes | None, log_row: bytes | None) -> Difference:
    live: dict[str, Any] | None = None if live_row is None else msgspec.json.decode(live_row)
    log: dict[str, Any] | None = None if log_row is None else msgspec.json.decode(log_row)
    row = live or log or {}
    key = {column: row[column] for column in KEYS[table]}
    if live is None or log is None:
        return Difference(table, key, live, log)
    names = [name for name in live if live[name] != log[name]]
    return Difference(table, key, {name: live[name] for name in names}, {name: log[name] for name in names})
