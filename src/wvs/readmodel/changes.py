"""Changes of rows as data. The projector makes them; SQL applies them in the transaction of their event."""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

Table: TypeAlias = Literal["workspaces", "snapshots", "snapshot_labels", "tasks", "trees"]

KEYS: Final[dict[Table, tuple[str, ...]]] = {
    "workspaces": ("id",),
    "snapshots": ("id",),
    "snapshot_labels": ("workspace_id", "label", "snapshot_id"),
    "tasks": ("id",),
    "trees": ("workspace_id", "name"),
}


class Insert(Struct, frozen=True):
    """A whole new row."""

    table: Table
    row: dict[str, Any]


class Update(Struct, frozen=True):
    """The columns that change, and the key columns that identify the row."""

    table: Table
    row: dict[str, Any]


Change: TypeAlias = Insert | Update


_KEY_OF: Final[dict[Table, Callable[[dict[str, Any]], Any]]] = {
    table: itemgetter(*columns) for table, columns in KEYS.items()
}


def merged(changes: Iterable[Change]) -> dict[str, list[dict[str, Any]]]:
    """The changes grouped as `wvs.apply_changes` takes them, with one change per row.

    SQL applies the updates of a group in one statement. Of two updates of one row it would apply only one.
    """
    inserts: dict[Table, dict[Any, dict[str, Any]]] = {table: {} for table in KEYS}
    updates: dict[Table, dict[Any, dict[str, Any]]] = {table: {} for table in KEYS}
    for change in changes:
        table, row = change.table, change.row
        key = _KEY_OF[table](row)
        new = inserts[table]
        if type(change) is Insert:
            new[key] = dict(row)
            continue
        known = new.get(key) or updates[table].get(key)
        if known is None:
            updates[table][key] = dict(row)
        else:
            known.update(row)
    return {
        **{f"{table}_insert": list(rows.values()) for table, rows in inserts.items() if rows},
        **{f"{table}_update": list(rows.values()) for table, rows in updates.items() if rows},
    }
