"""Reads single rows of the read models, and rows after a wait. Lists are in `listings.py`."""

from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from uuid import UUID

import msgspec

from wvs.eventlog.recorder import Show
from wvs.postgres.pool import Connection, Pool, acquire
from wvs.postgres.queries import sql
from wvs.readmodel.rows import (
    AnswerRows,
    SnapshotRow,
    TaskRow,
    WorkspaceRow,
    decode_answer,
    decode_snapshot,
    decode_task,
    decode_workspace,
    with_progress,
)

_WORKSPACE_BY_ID: Final = sql("workspace_by_id")
_WORKSPACE_BY_NAME: Final = sql("workspace_by_name")
_SNAPSHOT_BY_ID: Final = sql("snapshot_by_id")
_TASK_BY_ID: Final = sql("task_by_id")
_TASK_WORKSPACE: Final = sql("task_workspace")
_FINAL_AMONG: Final = sql("tasks_final_among")
_ROWS_NOW: Final = sql("rows_now")
_LOG_VOLUME: Final = sql("log_volume")


class Readers:
    """Reads on a pool. Every method raises what asyncpg or the socket raises while Postgres cannot be reached."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def acquire(self) -> AbstractAsyncContextManager[Connection]:
        """A pooled connection, for a read of several statements."""
        return acquire(self._pool)

    async def workspace(self, workspace_id: UUID) -> WorkspaceRow | None:
        """The workspace by its id."""
        row = await self._value(_WORKSPACE_BY_ID, workspace_id)
        return None if row is None else decode_workspace(row)

    async def workspace_named(self, name: str) -> WorkspaceRow | None:
        """The workspace that has the name now, otherwise the newest disabled one that had it."""
        row = await self._value(_WORKSPACE_BY_NAME, name)
        return None if row is None else decode_workspace(row)

    async def snapshot(self, workspace_id: UUID, snapshot_id: UUID) -> SnapshotRow | None:
        """The snapshot of this workspace, dropped or not."""
        row = await self._value(_SNAPSHOT_BY_ID, workspace_id, snapshot_id)
        return None if row is None else decode_snapshot(row)

    async def task(self, task_id: UUID) -> TaskRow | None:
        """The task, with its progress as of now."""
        async with self.acquire() as connection:
            row = await connection.fetchrow(_TASK_BY_ID, task_id)
        return None if row is None else decode_task(row["task"], row["progress"])

    async def workspace_of_task(self, task_id: UUID) -> UUID | None:
        """The workspace that the task belongs to."""
        return await self._value(_TASK_WORKSPACE, task_id)

    async def final_among(self, task_ids: list[UUID]) -> list[UUID]:
        """Those of the tasks that are succeeded, failed or cancelled."""
        async with self.acquire() as connection:
            return [row["id"] for row in await connection.fetch(_FINAL_AMONG, task_ids)]

    async def rows_now(self, show: Show) -> AnswerRows:
        """The named rows as they are now."""
        async with self.acquire() as connection:
            row = await connection.fetchrow(_ROWS_NOW, msgspec.json.encode(show))
        if row is None:
            raise AssertionError("a query without FROM returns one row")
        rows = decode_answer(row["answer"])
        if rows.task is None:
            return rows
        return msgspec.structs.replace(rows, task=with_progress(rows.task, row["progress"]))

    async def volume_id(self) -> UUID | None:
        """The volume that the log names; None while it names none."""
        return await self._value(_LOG_VOLUME)

    async def _value(self, query: str, *values: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(query, *values)
