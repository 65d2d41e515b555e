"""Lists, newest first, with keyset pagination. Queries are composed so that every filter combination uses its index."""

from collections.abc import Callable
from itertools import product
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from msgspec import Struct

from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.postgres.pool import Pool, Record, acquire
from wvs.postgres.queries import Composed, compose
from wvs.readmodel.rows import (
    SnapshotRow,
    TaskRow,
    WorkspaceRow,
    decode_snapshot,
    decode_task,
    decode_workspace,
)

NEWEST: Final = UUID(int=(1 << 128) - 1)
"""The `before` of a list's first page: greater than every id."""

_TASK_BEFORE: Final[dict[tuple[str, ...], str]] = {
    (): "task_before",
    ("state",): "task_state_before",
    ("kind", "state"): "task_kind_and_state_before",
}
"""The fragment for the filters after the leading one, in the order of the index columns."""


def _workspaces(*, name: bool, state: bool) -> Composed:
    title = _title("workspaces", name=name, state=state)
    if name and state:
        return compose(title, ("workspace_shown", "workspace_row_named"), ("workspace_in_state", "workspace_before"))
    lead = ("workspace_of_name",) if name else ("workspace_of_state",) if state else ()
    return compose(title, ("workspace_shown", "workspace_rows"), (*lead, "workspace_before"))


def _snapshots(*, state: bool, kept: bool) -> Composed:
    title = _title("snapshots", state=state, kept=kept)
    order = ("snapshot_state_before",) if state else ("snapshot_before",)
    filters = ("snapshot_of_workspace", *order, *(("snapshot_kept",) if kept else ()))
    return compose(title, ("snapshot_shown", "snapshot_rows"), filters)


def _labelled_snapshots(*, others: bool, state: bool, kept: bool) -> Composed:
    title = _title("snapshots", label=True, others=others, state=state, kept=kept)
    optional = {"snapshot_other_labels": others, "snapshot_state": state, "snapshot_kept": kept}
    filters = ("snapshot_label_before", *(fragment for fragment, wanted in optional.items() if wanted))
    return compose(title, ("snapshot_shown", "snapshot_rows_of_labels"), filters)


def _tasks(*, workspace: bool, kind: bool, state: bool) -> Composed:
    title = _title("tasks", workspace=workspace, kind=kind, state=state)
    if workspace and kind and not state:
        return compose(title, ("task_shown", "task_rows_of_workspace_and_kind"), ("task_before",))
    lead, *rest = [f for f, wanted in (("workspace", workspace), ("kind", kind), ("state", state)) if wanted] or [""]
    filters = (*((f"task_of_{lead}",) if lead else ()), _TASK_BEFORE[tuple(rest)])
    return compose(title, ("task_shown", "task_rows"), filters)


def _title(of: str, **filters: bool) -> str:
    return "_".join([of, *(["by", *wanted] if (wanted := [name for name, given in filters.items() if given]) else [])])


_CHOICE: Final = (False, True)
_WORKSPACES: Final = {(n, s): _workspaces(name=n, state=s) for n, s in product(_CHOICE, repeat=2)}
_DISABLED_WORKSPACES: Final = compose(
    "workspaces_by_name_disabled",
    ("workspace_shown", "workspace_rows"),
    ("workspace_of_name", "workspace_before", "workspace_disabled"),
)
_SNAPSHOTS: Final = {(s, k): _snapshots(state=s, kept=k) for s, k in product(_CHOICE, repeat=2) if not (s and k)}
_LABELLED_SNAPSHOTS: Final = {
    (o, s, k): _labelled_snapshots(others=o, state=s, kept=k) for o, s, k in product(_CHOICE, repeat=3) if not (s and k)
}
_TASKS: Final = {(w, k, s): _tasks(workspace=w, kind=k, state=s) for w, k, s in product(_CHOICE, repeat=3)}

R = TypeVar("R")


class Slice(Struct, Generic[R], frozen=True):
    """Rows of a list. `more`: older rows follow."""

    rows: list[R]
    more: bool


class WorkspaceFilter(Struct, frozen=True):
    """Selects workspaces; a None selects all."""

    state: WorkspaceState | None = None
    name: str | None = None


class SnapshotFilter(Struct, frozen=True):
    """Selects snapshots of one workspace. `labels` are different `key=value`; a snapshot must have all of them."""

    workspace_id: UUID
    state: SnapshotState | None = None
    labels: tuple[str, ...] = ()
    include_deleted: bool = False


class TaskFilter(Struct, frozen=True):
    """Selects tasks; a None selects all."""

    workspace_id: UUID | None = None
    state: TaskState | None = None
    kind: TaskKind | None = None


class Listings:
    """The lists. `before` is the id of the last row of the previous page, `limit` the greatest number of rows."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def workspaces(self, wanted: WorkspaceFilter, before: UUID, limit: int) -> Slice[WorkspaceRow]:
        """Workspaces, disabled ones included."""
        query, values = workspace_query(wanted)
        return await self._slice(query, values, before, limit, lambda row: decode_workspace(row[0]))

    async def snapshots(self, wanted: SnapshotFilter, before: UUID, limit: int) -> Slice[SnapshotRow]:
        """Snapshots of one workspace."""
        if wanted.state is SnapshotState.DROPPED and not wanted.include_deleted:
            return Slice([], more=False)
        query, values = snapshot_query(wanted)
        return await self._slice(query, values, before, limit, lambda row: decode_snapshot(row[0]))

    async def tasks(self, wanted: TaskFilter, before: UUID, limit: int) -> Slice[TaskRow]:
        """Tasks; the running ones have their present progress."""
        query, values = task_query(wanted)
        return await self._slice(query, values, before, limit, lambda row: decode_task(row[0], row[1]))

    async def _slice(
        self, query: Composed, values: dict[str, Any], before: UUID, limit: int, decode: Callable[[Record], R]
    ) -> Slice[R]:
        bound = query.values({**values, "before": before, "limit": limit + 1})
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(query.sql, *bound)
        return Slice([decode(row) for row in rows[:limit]], more=len(rows) > limit)


def workspace_query(wanted: WorkspaceFilter) -> tuple[Composed, dict[str, Any]]:
    """The query for this combination of filters, and its values except `before` and `limit`."""
    values = {"name": wanted.name, "state": wanted.state}
    if wanted.name is not None and wanted.state is WorkspaceState.DISABLED:
        return _DISABLED_WORKSPACES, values
    return _WORKSPACES[wanted.name is not None, wanted.state is not None], values


def snapshot_query(wanted: SnapshotFilter) -> tuple[Composed, dict[str, Any]]:
    """The same for snapshots. With a state given, no filter on dropped snapshots is needed."""
    has_state = wanted.state is not None
    kept = not (wanted.include_deleted or has_state)
    values: dict[str, Any] = {"workspace": wanted.workspace_id, "state": wanted.state}
    if not wanted.labels:
        return _SNAPSHOTS[has_state, kept], values
    first, *others = wanted.labels
    return _LABELLED_SNAPSHOTS[bool(others), has_state, kept], {**values, "label": first, "other_labels": others}


def task_query(wanted: TaskFilter) -> tuple[Composed, dict[str, Any]]:
    """The same for tasks."""
    values = {"workspace": wanted.workspace_id, "kind": wanted.kind, "state": wanted.state}
    has_workspace, has_kind, has_state = (value is not None for value in values.values())
    return _TASKS[has_workspace, has_kind, has_state], values
