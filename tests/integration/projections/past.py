"""A log with every kind of change, written through the write path: a rebuild must make the same rows from it."""

import datetime as dt
import uuid
from uuid import UUID

from tests.integration.eventlog.commanding import HOLDER_GONE, ORIGIN, activated, cancel, now, snapshot

from wvs.application.write_path import WritePath
from wvs.domain.commands import (
    Command,
    DisableWorkspace,
    DropSnapshot,
    FailAttempt,
    FinishDrop,
    FinishSetCurrent,
    FinishSnapshot,
    ReportFound,
    ReportLost,
    SetCurrent,
    StartTask,
)
from wvs.domain.errors import ErrorCode
from wvs.domain.events import SnapshotRequested
from wvs.domain.values import Certificate, CloneReport, TaskError

_AT = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
_REPORT = CloneReport("copy", 3, 4096, 1, 0.01, 0.02, 0.05, ("1 socket skipped",))
_BROKEN = TaskError(ErrorCode.CLONE_FAILED, "the disk said no", retryable=False)


def certificate(number: int) -> Certificate:
    return Certificate(number, True, (), "stamp", "stamp", "copy", _AT, _AT)


class Past:
    """One workspace, and the commands that change it."""

    def __init__(self, path: WritePath, workspace_id: UUID) -> None:
        self.path = path
        self.workspace_id = workspace_id
        self._fence = 1

    async def do(self, command: Command) -> None:
        await self.path.execute(self.workspace_id, command, at=now(), origin=ORIGIN)

    async def start(self, task_id: UUID, *, tree: bool = True) -> tuple[int, str]:
        self._fence += 1
        name = f"{task_id.hex}.{self._fence}"
        await self.do(StartTask(task_id, self._fence, "executor", name if tree else None, now(), HOLDER_GONE))
        return self._fence, name

    async def ready_snapshot(self) -> UUID:
        (asked,) = (await snapshot(self.path, self.workspace_id)).events
        assert isinstance(asked, SnapshotRequested)
        fence, tree = await self.start(asked.task_id)
        await self.do(FinishSnapshot(asked.task_id, fence, tree, _REPORT, certificate(fence)))
        return asked.snapshot_id

    async def failed_snapshot(self) -> None:
        (asked,) = (await snapshot(self.path, self.workspace_id)).events
        assert isinstance(asked, SnapshotRequested)
        fence, _ = await self.start(asked.task_id)
        await self.do(FailAttempt(asked.task_id, fence, _BROKEN, now(), 0.0))

    async def set_current(self, snapshot_id: UUID) -> None:
        task_id = uuid.uuid4()
        await self.do(SetCurrent(snapshot_id, task_id))
        fence, tree = await self.start(task_id)
        await self.do(FinishSetCurrent(task_id, fence, tree, _REPORT, certificate(fence)))

    async def drop(self, snapshot_id: UUID) -> None:
        task_id = uuid.uuid4()
        await self.do(DropSnapshot(snapshot_id, task_id))
        fence, _ = await self.start(task_id, tree=False)
        await self.do(FinishDrop(task_id, fence))


async def lively_past(path: WritePath, name: str) -> Past:
    """A workspace with every kind of change in its past, and no queued task.

    Beside it there are an older, disabled workspace of the same name, and a third workspace with queued tasks.
    """
    older = await activated(path, name)
    await path.execute(older, DisableWorkspace("done"), at=now(), origin=ORIGIN)
    past = Past(path, await activated(path, name))
    kept, dropped, lost, returned = [await past.ready_snapshot() for _ in range(4)]
    await past.set_current(kept)
    await past.drop(dropped)
    await past.do(ReportLost(lost, "its directory is gone"))
    await past.do(ReportLost(returned, "its directory is gone"))
    await past.do(ReportFound(returned, "its directory is there again"))
    await past.failed_snapshot()
    await cancel(path, past.workspace_id, await snapshot(path, past.workspace_id))
    waiting = Past(path, await activated(path, f"{name}-waits"))
    older_one = await waiting.ready_snapshot()
    await snapshot(path, waiting.workspace_id)
    await waiting.do(SetCurrent(older_one, uuid.uuid4()))
    return past
