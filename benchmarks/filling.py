"""Fills workspaces with history in bulk: the same rows as the service writes, but many events in one call."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from wvs.domain.commands import Command, CreateSnapshot, CreateWorkspace, FinishInit, FinishSnapshot, StartTask
from wvs.domain.decide import decide
from wvs.domain.errors import ErrorCode
from wvs.domain.evolve import fold
from wvs.domain.values import Certificate, CloneReport, Metadata, TaskError
from wvs.domain.workspace import Workspace
from wvs.eventlog.chain import GENESIS, next_hash
from wvs.eventlog.codec import EventMapper, RecordedEvent
from wvs.eventlog.recorder import CommandWrite, NewEvent, Outcome, record
from wvs.postgres.pool import Connection
from wvs.readmodel.changes import Change, merged
from wvs.readmodel.projector import project

_GONE = TaskError(ErrorCode.LEASE_LOST, "gone", retryable=True)
_REPORT = CloneReport("copy", 100, 409_600, 0, 0.001, 0.012, 0.02)


class Filler:
    """Writes one workspace's history. It decides commands at once and writes them when `batch` events are pending."""

    def __init__(self, connection: Connection, name: str, *, batch: int = 1_000) -> None:
        self.workspace_id: UUID = uuid.uuid4()
        self._connection = connection
        self._name = name
        self._batch = batch
        self._mapper = EventMapper()
        self._workspace: Workspace | None = None
        self._hash = GENESIS
        self._sent_hash = GENESIS
        self._pending: list[NewEvent] = []
        self._changes: list[Change] = []
        self._at = datetime.now(UTC)
        self._fence = 0

    async def create(self) -> None:
        """Creates the workspace and makes it active."""
        task_id = uuid.uuid4()
        await self._do(CreateWorkspace(self._name, {"team": "a"}, task_id))
        await self._run(task_id, lambda fence, tree: FinishInit(task_id, fence, tree, "copy"))

    async def snapshot(self) -> UUID:
        """Adds a ready snapshot: three events."""
        snapshot_id, task_id = uuid.uuid4(), uuid.uuid4()
        await self._do(CreateSnapshot(snapshot_id, task_id, "nightly", {"run": "7"}))
        stamp = f"{self._fence:032x}"

        def finish(fence: int, tree: str) -> Command:
            proof = Certificate(fence, True, (), stamp, stamp, "copy", self._at, self._at)
            return FinishSnapshot(task_id, fence, tree, _REPORT, proof)

        await self._run(task_id, finish)
        return snapshot_id

    async def flush(self) -> None:
        """Writes the pending events."""
        if not self._pending:
            return
        after = self._workspace
        if after is None:
            raise AssertionError("pending events belong to a workspace")
        metadata = Metadata(self._at, "benchmark", "benchmark", None, None, None)
        write = CommandWrite(
            workspace_id=self.workspace_id,
            expected=after.version - len(self._pending),
            previous_hash=self._sent_hash,
            events=self._pending,
            occurred_at=self._at,
            actor=metadata.actor,
            request_id=metadata.request_id,
            traceparent=None,
            changes=merged(self._changes),
            steps=[],
            key=None,
            status=200,
            show=None,
            hold=None,
        )
        recorded = await record(self._connection, write)
        if recorded.outcome is not Outcome.COMMITTED:
            raise RuntimeError(f"the events were not written: {recorded}")
        self._sent_hash = self._hash
        self._pending, self._changes = [], []

    async def _run(self, task_id: UUID, finish: Callable[[int, str], Command]) -> None:
        self._fence += 1
        tree = f"{task_id.hex}.{self._fence}"
        await self._do(StartTask(task_id, self._fence, "executor", tree, self._at, _GONE))
        await self._do(finish(self._fence, tree))

    async def _do(self, command: Command) -> None:
        self._at += timedelta(milliseconds=1)
        metadata = Metadata(self._at, "benchmark", "benchmark", None, None, None)
        version = 0 if self._workspace is None else self._workspace.version
        events = decide(command, self._workspace)
        for number, event in enumerate(events, version + 1):
            stored = self._mapper.to_stored_event(RecordedEvent(self.workspace_id, number, event, metadata))
            self._hash = next_hash(self._hash, self.workspace_id, number, stored.topic, stored.state)
            task_id, snapshot_id = getattr(event, "task_id", None), getattr(event, "snapshot_id", None)
            self._pending.append(NewEvent(stored.topic, stored.state, self._hash, task_id, snapshot_id))
            self._changes += project(self.workspace_id, event, metadata)
        self._workspace = fold(self.workspace_id, events, self._workspace)
        if len(self._pending) >= self._batch:
            await self.flush()
