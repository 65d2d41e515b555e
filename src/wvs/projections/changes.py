"""Changes of rows, as data: made by the projector, applied by SQL in the event's own transaction."""

from collections.abc import Iterable
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
    """The columns that change, together with those of the key that names the row."""

    table: Table
    row: dict[str, Any]


Change: TypeAlias = Insert | Update


def key_of(change: Change) -> tuple[Any, ...]:
    """The table and the primary key of the row that `change` is about."""
    return (change.table, *(change.row[k] for k in KEYS[change.table]))


def merged(changes: Iterable[Change]) -> dict[str, list[dict[str, Any]]]:
    """The changes grouped as `wvs.apply_changes` takes them, with one change per row.

    SQL applies the updates of a group in one statement, which would let only one of two changes of a row win.
    """
    inserts: dict[tuple[Any, ...], Insert] = {}
    updates: dict[tuple[Any, ...], Update] = {}
    for change in changes:
        key = key_of(change)
        if isinstance(change, Insert):
            inserts[key] = Insert(change.table, dict(change.row))
        elif key in inserts:
            inserts[key].row.update(change.row)
        elif key in updates:
            updates[key].row.update(change.row)
        else:
            updates[key] = Update(change.table, dict(change.row))
    groups: dict[str, list[dict[str, Any]]] = {}
    for insert in inserts.values():
        groups.setdefault(f"{insert.table}_insert", []).append(insert.row)
    for update in updates.values():
        groups.setdefault(f"{update.table}_update", []).append(update.row)
    return groups
