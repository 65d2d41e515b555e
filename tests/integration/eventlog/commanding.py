"""Workspaces created and changed through the write path alone: no executor, no claims, no directories."""

import datetime as dt
import uuid
from hashlib import sha256
from uuid import UUID

from wvs.application.write_path import Committed, Origin, Reply, WritePath
from wvs.domain.commands import CancelTask, CreateSnapshot, CreateWorkspace, FinishInit, StartTask
from wvs.domain.errors import ErrorCode
from wvs.domain.events import Event, SnapshotRequested
from wvs.domain.values import TaskError
from wvs.domain.workspace import Workspace
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.recorder import IdempotencyKey, Show
from wvs.postgres.pool import Pool
from wvs.telemetry.metrics import Metrics

ORIGIN = Origin(actor="tester", request_id="req-1")
HOLDER_GONE = TaskError(ErrorCode.LEASE_LOST, "gone", retryable=True)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def write_path(pool: Pool, mapper: EventMapper | None = None, settle_s: float = 5.0) -> WritePath:
    return WritePath(pool, mapper or EventMapper(), Metrics(), settle_s=settle_s)


def key_of(text: str) -> IdempotencyKey:
    return IdempotencyKey("tester", text, sha256(text.encode()).digest())


async def created(
    path: WritePath, name: str, key: IdempotencyKey | None = None, workspace_id: UUID | None = None
) -> tuple[UUID, Committed]:
    """A new workspace whose init task is queued, and the answer to the request."""
    workspace_id, task_id = workspace_id or uuid.uuid4(), uuid.uuid4()

    def describe(_events: list[Event], workspace: Workspace) -> tuple[int, Show]:
        return 202, Show(workspace=workspace.id, task=task_id)

    command = CreateWorkspace(name, {"team": "a"}, task_id)
    return workspace_id, await path.execute(workspace_id, command, at=now(), origin=ORIGIN, reply=Reply(describe, key))


async def activated(path: WritePath, name: str) -> UUID:
    """A new active workspace."""
    workspace_id, committed = await created(path, name)
    assert committed.workspace is not None
    (task_id,) = committed.workspace.tasks
    start = StartTask(task_id, 1, "executor", "t.1", now(), HOLDER_GONE)
    await path.execute(workspace_id, start, at=now(), origin=ORIGIN)
    await path.execute(workspace_id, FinishInit(task_id, 1, "t.1", "copy"), at=now(), origin=ORIGIN)
    return workspace_id


async def snapshot(
    path: WritePath, workspace_id: UUID, key: IdempotencyKey | None = None, origin: Origin = ORIGIN
) -> Committed:
    """Requests one more snapshot; the answer shows it and its task."""
    snapshot_id, task_id = uuid.uuid4(), uuid.uuid4()

    def describe(_events: list[Event], _workspace: Workspace) -> tuple[int, Show]:
        return 202, Show(snapshot=snapshot_id, task=task_id)

    command = CreateSnapshot(snapshot_id, task_id, None, {})
    return await path.execute(workspace_id, command, at=now(), origin=origin, reply=Reply(describe, key))


async def cancel(path: WritePath, workspace_id: UUID, requested: Committed, origin: Origin = ORIGIN) -> Committed:
    """Cancels the requested snapshot."""
    (event,) = requested.events
    assert isinstance(event, SnapshotRequested)
    return await path.execute(workspace_id, CancelTask(event.task_id), at=now(), origin=origin)
