"""Replays the log into tables like the read models, for a rebuild and for a verification.

A batch of events becomes at most one change per row. New rows are copied; changes of older rows are applied by the
function that commands use. Changes come first: a workspace of the batch may have the name of one that it disables.
"""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.eventlog.codec import EventMapper, StoredEvent, UnknownEventError
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql
from wvs.readmodel.changes import KEYS, Change, merged
from wvs.readmodel.projector import project

BATCH: Final = 10_000
"""Events that are replayed at a time; bounds the memory."""

Row = tuple[int, UUID, int, str, bytes, bytes]
_COLUMNS: Final = sql("fresh_columns")


class PoisonedEventError(Exception):
    """This release cannot read an event of the log, and therefore replays nothing behind it."""

    def __init__(self, position: int, cause: UnknownEventError) -> None:
        super().__init__(f"The event at position {position} cannot be read: {cause}")
        self.position = position


class ReadModelColumn(Struct, frozen=True):
    """A column of a read model."""

    name: str
    is_json: bool


class Tables(Struct, frozen=True):
    """The target of a replay: a schema with its tables' columns, and the query that applies changes there."""

    schema: str
    columns: dict[str, list[ReadModelColumn]]
    apply_changes: str


async def tables_of(connection: Connection, schema: str, apply_changes: str) -> Tables:
    """The read models' tables in `schema`."""
    columns: dict[str, list[ReadModelColumn]] = {}
    for row in await connection.fetch(_COLUMNS, schema):
        columns.setdefault(row["table_name"], []).append(ReadModelColumn(row["column_name"], row["is_json"]))
    if columns.keys() != KEYS.keys():
        raise AssertionError(f"schema {schema} does not have the tables that the projector writes: {sorted(columns)}")
    return Tables(schema, columns, apply_changes)


def changes_of(mapper: EventMapper, rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """The changes that the events cause, one per row; raises `PoisonedEventError` at the first unreadable event."""
    changes: list[Change] = []
    for position, workspace_id, version, topic, state, _ in rows:
        try:
            recorded = mapper.to_domain_event(StoredEvent(workspace_id, version, topic, state))
        except UnknownEventError as error:
            raise PoisonedEventError(position, error) from error
        changes += project(workspace_id, recorded.event, recorded.metadata)
    return merged(changes)


async def apply(connection: Connection, tables: Tables, groups: dict[str, list[dict[str, Any]]]) -> None:
    """Writes the changes in the caller's transaction, which also records the position that was reached."""
    updates = {name: rows for name, rows in groups.items() if name.endswith("_update")}
    if updates:
        await connection.execute(tables.apply_changes, msgspec.json.encode(updates))
    for table, columns in tables.columns.items():
        rows = groups.get(f"{table}_insert")
        if rows:
            await _copy(connection, tables.schema, table, columns, rows)


async def _copy(
    connection: Connection, schema: str, table: str, columns: list[ReadModelColumn], rows: list[dict[str, Any]]
) -> None:
    # Only what the projector names: a column that a later release added takes its default.
    named = set[str]().union(*rows)
    empty = dict.fromkeys(column.name for column in columns if column.name in named)
    json = [column.name for column in columns if column.is_json and column.name in named]
    record = itemgetter(*empty)

    def records() -> Iterable[Any]:
        for row in rows:
            whole = {**empty, **row}
            for name in json:
                if whole[name] is not None:
                    whole[name] = msgspec.json.encode(whole[name])
            yield record(whole)

    await connection.copy_records_to_table(table, schema_name=schema, columns=list(empty), records=records())
