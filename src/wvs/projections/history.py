"""The past of a workspace: its rows of the read models at an earlier version, projected from the log alone.

A row is a fold of the few events that concern it, which an index finds. That costs the same at 10 and at 100,000 events
and needs no stored states of the past (ADR 0032).
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, TypeVar, cast
from uuid import UUID

from msgspec import Struct

from wvs.domain.events import (
    CurrentSet,
    CurrentSetRequested,
    CurrentSetSkipped,
    SnapshotDropRequested,
    SnapshotRequested,
    WorkspaceCreated,
    WorkspaceDisabled,
    WorkspaceInitFailed,
    WorkspaceInitialized,
    WorkspaceInitRetried,
)
from wvs.eventlog.codec import EventMapper, RecordedEvent, StoredEvent, topics_of
from wvs.postgres.pool import Connection, Record
from wvs.postgres.queries import sql
from wvs.projections.listings import Slice
from wvs.readmodel.changes import Change, Insert, Table
from wvs.readmodel.projector import project
from wvs.readmodel.rows import ProgressRow, SnapshotRow, TaskRow, WorkspaceRow

_PLACE: Final = sql("history_place")
_VERSION_WHEN: Final = sql("workspace_version_when")
_OF_WORKSPACE: Final = sql("history_of_workspace")
_SNAPSHOT_IDS: Final = sql("history_snapshot_ids")
_TASK_IDS: Final = sql("history_task_ids")
_OF_SNAPSHOTS: Final = sql("history_of_snapshots")
_OF_TASKS: Final = sql("history_of_tasks")

_WORKSPACE_TOPICS: Final = topics_of(
    WorkspaceCreated, WorkspaceInitialized, WorkspaceInitFailed, WorkspaceInitRetried, WorkspaceDisabled
)
_POINTER_TOPICS: Final = topics_of(CurrentSet)
_SNAPSHOT_TOPICS: Final = topics_of(SnapshotRequested)
_TASK_TOPICS: Final = topics_of(WorkspaceCreated, SnapshotRequested, SnapshotDropRequested, CurrentSetRequested)
_MAYBE_NEW_TASK_TOPICS: Final = topics_of(WorkspaceInitRetried, CurrentSetSkipped)

T = TypeVar("T", bound=Struct)


class PlaceInLog(Struct, frozen=True):
    """A version of a workspace: position, time and hash of its event, and the workspace's last version."""

    version: int
    latest: int
    position: int
    occurred_at: datetime
    hash: bytes


class PastSlice(Slice[T], frozen=True):
    """Rows, the newest first. `oldest` is the version that created the last of them; the next page is older than it."""

    oldest: int


class History:
    """One workspace's past, read on one connection. Past versions never change, so no transaction is needed."""

    def __init__(self, connection: Connection, mapper: EventMapper, workspace_id: UUID) -> None:
        self._connection = connection
        self._mapper = mapper
        self._workspace_id = workspace_id

    async def place(self, version: int) -> PlaceInLog | None:
        """The place of `version` in the log; None if the workspace has no such version yet."""
        row = await self._connection.fetchrow(_PLACE, self._workspace_id, version)
        if row is None or row["position"] is None:
            return None
        return PlaceInLog(version, row["latest"], row["position"], row["occurred_at"], row["hash"])

    async def version_at(self, time: datetime) -> int:
        """The version of the last event that had occurred at `time`; 0 before the first event."""
        return await self._connection.fetchval(_VERSION_WHEN, self._workspace_id, time)

    async def workspace(self, version: int) -> WorkspaceRow:
        """The workspace's row as of `version`, which must exist."""
        rows = await self._connection.fetch(
            _OF_WORKSPACE, self._workspace_id, version, _WORKSPACE_TOPICS, _POINTER_TOPICS
        )
        return self._folded(rows, "workspaces", WorkspaceRow)[self._workspace_id]

    async def snapshots(self, version: int, before: int, limit: int) -> PastSlice[SnapshotRow]:
        """Up to `limit` snapshots as of `version` requested before version `before`, dropped ones included."""
        requested = await self._connection.fetch(_SNAPSHOT_IDS, self._workspace_id, before, _SNAPSHOT_TOPICS, limit + 1)
        rows = await self._connection.fetch(_OF_SNAPSHOTS, version, _ids(requested, limit))
        return _slice(requested, self._folded(rows, "snapshots", SnapshotRow), limit)

    async def tasks(self, version: int, before: int, limit: int) -> PastSlice[TaskRow]:
        """Up to `limit` tasks as of `version` created before version `before`. The log holds no progress."""
        created = await self._connection.fetch(
            _TASK_IDS, self._workspace_id, before, _TASK_TOPICS, limit + 1, _MAYBE_NEW_TASK_TOPICS
        )
        rows = await self._connection.fetch(_OF_TASKS, version, _ids(created, limit))
        return _slice(created, self._folded(rows, "tasks", TaskRow), limit)

    def _folded(self, rows: Iterable[Record], table: Table, kind: type[T]) -> dict[UUID, T]:
        """The rows of `table` that these events create, as the events leave them."""
        columns: dict[UUID, dict[str, Any]] = {}
        for change in self._changes(rows):
            if change.table != table:
                continue
            row_id = change.row["id"]
            if isinstance(change, Insert):
                columns[row_id] = dict(change.row)
            elif row_id in columns:
                columns[row_id].update(change.row)
        return {row_id: _row(kind, row) for row_id, row in columns.items()}

    def _changes(self, rows: Iterable[Record]) -> Iterable[Change]:
        for version, topic, state in rows:
            stored = StoredEvent(self._workspace_id, version, topic, state)
            recorded = cast("RecordedEvent", self._mapper.to_domain_event(stored))
            yield from project(self._workspace_id, recorded.event, recorded.metadata)


def _row(kind: type[T], columns: dict[str, Any]) -> T:
    known = {name: columns[name] for name in kind.__struct_fields__ if name in columns}
    if (progress := known.get("progress")) is not None:
        known["progress"] = ProgressRow(**progress)
    return kind(**known)


def _ids(found: list[Record], limit: int) -> list[UUID]:
    return [row["id"] for row in found[:limit]]


def _slice(found: list[Record], rows: dict[UUID, T], limit: int) -> PastSlice[T]:
    shown = found[:limit]
    return PastSlice([rows[row["id"]] for row in shown], len(found) > limit, shown[-1]["version"] if shown else 0)
