"""Lists: newest first by keyset, one named query for every combination of filters, so that each has its index."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from msgspec import Struct

from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.postgres.pool import Pool, Record, acquire
from wvs.postgres.queries import sql
from wvs.readmodel.rows import (
    SnapshotRow,
    TaskRow,
    WorkspaceRow,
    decode_snapshot,
    decode_task,
    decode_workspace,
)

NEWEST: Final = UUID(int=(1 << 128) - 1)
"""Where a list begins: above every id."""

_WORKSPACES: Final = {
    (False, False): sql("workspaces_all"),
    (False, True): sql("workspaces_by_state"),
    (True, False): sql("workspaces_by_name"),
    (True, True): sql("workspaces_by_name_and_state"),
}
_WORKSPACES_BY_NAME_DISABLED: Final = sql("workspaces_by_name_disabled")
_SNAPSHOTS_KEPT: Final = sql("snapshots_kept")
_SNAPSHOTS_ALL: Final = sql("snapshots_all")
_SNAPSHOTS_BY_STATE: Final = sql("snapshots_by_state")
_SNAPSHOTS_BY_LABEL_KEPT: Final = sql("snapshots_by_label_kept")
_SNAPSHOTS_BY_LABEL_ALL: Final = sql("snapshots_by_label_all")
_SNAPSHOTS_BY_LABEL_AND_STATE: Final = sql("snapshots_by_label_and_state")
_TASKS: Final = {
    (False, False, False): sql("tasks_all"),
    (False, True, False): sql("tasks_by_state"),
    (False, False, True): sql("tasks_by_kind"),
    (False, True, True): sql("tasks_by_state_and_kind"),
    (True, False, False): sql("tasks_of_workspace"),
    (True, True, False): sql("tasks_of_workspace_by_state"),
    (True, False, True): sql("tasks_of_workspace_by_kind"),
    (True, True, True): sql("tasks_of_workspace_by_state_and_kind"),
}

R = TypeVar("R")


class Slice(Struct, Generic[R], frozen=True):
    """Rows of a list, and whether older ones follow."""

    rows: list[R]
    more: bool


class WorkspaceFilter(Struct, frozen=True):
    """Which workspaces; None asks for all."""

    state: WorkspaceState | None = None
    name: str | None = None


class SnapshotFilter(Struct, frozen=True):
    """Which snapshots of one workspace; `labels` are different `key=value`, and all must be there."""

    workspace_id: UUID
    state: SnapshotState | None = None
    labels: tuple[str, ...] = ()
    include_deleted: bool = False


class TaskFilter(Struct, frozen=True):
    """Which tasks; None asks for all."""

    workspace_id: UUID | None = None
    state: TaskState | None = None
    kind: TaskKind | None = None


class Listings:
    """Lists on a pool; `before` is the id of the last row that was seen, `limit` how many rows at most."""

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
        """Tasks, with the progress of the running ones as of now."""
        query, values = task_query(wanted)
        return await self._slice(query, values, before, limit, lambda row: decode_task(row[0], row[1]))

    async def _slice(
        self, query: str, values: Sequence[Any], before: UUID, limit: int, decode: Callable[[Record], R]
    ) -> Slice[R]:
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(query, before, limit + 1, *values)
        return Slice([decode(row) for row in rows[:limit]], more=len(rows) > limit)


def workspace_query(wanted: WorkspaceFilter) -> tuple[str, list[Any]]:
    """The query of a combination of filters, and its values after id and limit."""
    if wanted.name is not None and wanted.state is WorkspaceState.DISABLED:
        return _WORKSPACES_BY_NAME_DISABLED, [wanted.name]
    given = [wanted.name, wanted.state]
    return _WORKSPACES[wanted.name is not None, wanted.state is not None], _present(given)


def snapshot_query(wanted: SnapshotFilter) -> tuple[str, list[Any]]:
    """The same for snapshots."""
    if not wanted.labels:
        if wanted.state is not None:
            return _SNAPSHOTS_BY_STATE, [wanted.workspace_id, wanted.state]
        return _SNAPSHOTS_ALL if wanted.include_deleted else _SNAPSHOTS_KEPT, [wanted.workspace_id]
    first, *others = wanted.labels
    values: list[Any] = [wanted.workspace_id, first, others]
    if wanted.state is not None:
        return _SNAPSHOTS_BY_LABEL_AND_STATE, [*values, wanted.state]
    return _SNAPSHOTS_BY_LABEL_ALL if wanted.include_deleted else _SNAPSHOTS_BY_LABEL_KEPT, values


def task_query(wanted: TaskFilter) -> tuple[str, list[Any]]:
    """The same for tasks."""
    given = [wanted.workspace_id, wanted.state, wanted.kind]
    has_workspace, has_state, has_kind = (value is not None for value in given)
    return _TASKS[has_workspace, has_state, has_kind], _present(given)


def _present(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not None]
