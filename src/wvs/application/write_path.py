"""The write path: decide on the cached state, commit in one transaction, and on a conflict catch up and decide again.

A refusal that was decided on the cached state is not final: the state may be old, and a repeated request looks like a
refused one. The write path therefore first loads newer events and looks up the idempotency key in Postgres.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg
import msgspec
import structlog
from msgspec import Struct

from wvs.domain.commands import CancelTask, Command, DropSnapshot, FinishDrop, StartTask
from wvs.domain.decide import decide
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import Event
from wvs.domain.evolve import fold
from wvs.domain.react import Enqueue, react
from wvs.domain.values import Metadata
from wvs.domain.workspace import Workspace
from wvs.eventlog.aggregates import Aggregates, WorkspaceHead, put_memento
from wvs.eventlog.chain import next_hash
from wvs.eventlog.codec import EventMapper, RecordedEvent
from wvs.eventlog.mementos import memento_due
from wvs.eventlog.recorder import (
    CommandWrite,
    CommitResult,
    Hold,
    IdempotencyKey,
    NewEvent,
    Outcome,
    Show,
    idempotent_answer,
    record,
    settled,
)
from wvs.postgres.availability import CONNECTION_LOST, DISK_FULL_HINT, ROLLED_BACK, disk_full_detail
from wvs.postgres.pool import Pool, acquire
from wvs.postgres.reserve import DiskReserve
from wvs.readmodel.changes import merged
from wvs.readmodel.projector import project
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics

MAX_CONFLICTS: Final = 50
_RETRY_SETTLE_S: Final = 0.2
KEPT_FOR_DROPS: Final = 0.5
"""The share of the reserve that only drops and cancels may use."""

log = structlog.get_logger(__name__)


class OutcomeUnknownError(Exception):
    """The connection broke during a commit, and the database did not come back in time to look up the outcome."""


class Origin(Struct, frozen=True):
    """The actor and the request behind a command; they become the metadata of its events."""

    actor: str
    request_id: str
    idempotency_key: str | None = None
    traceparent: str | None = None
    causation: str | None = None


class Reply(Struct, frozen=True):
    """The answer, which is also stored under the key: a status, and the rows to show as they are after the command."""

    describe: Callable[[list[Event], Workspace], tuple[int, Show]]
    key: IdempotencyKey | None = None


class Committed(Struct, frozen=True):
    """A command's success. `answer` is a JSON object of rows; `workspace` is None if the answer was replayed."""

    events: list[Event]
    workspace: Workspace | None
    status: int
    answer: bytes | None
    replayed: bool = False


class WritePath:
    """Executes commands. One per process; safe to use from many tasks of one event loop.

    `on_commit` is called with the events of each commit, after it, and must not block: it sends the hints. `reserve` is
    the disk space that commands which end work or free space may use on a full disk.
    """

    def __init__(
        self,
        pool: Pool,
        mapper: EventMapper,
        metrics: Metrics,
        on_commit: Callable[[UUID, list[Event]], None] = lambda _workspace_id, _events: None,
        settle_s: float = 5.0,
        reserve: DiskReserve | None = None,
    ) -> None:
        self.pool = pool
        self.mapper = mapper
        self.metrics = metrics
        self._on_commit = on_commit
        self._settle_s = settle_s
        self.reserve = reserve
        self.aggregates = Aggregates(mapper)
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._background: set[asyncio.Task[None]] = set()

    async def execute(
        self,
        workspace_id: UUID,
        command: Command,
        *,
        at: datetime,
        origin: Origin,
        reply: Reply | None = None,
        hold: Hold | None = None,
    ) -> Committed:
        """Decides and commits; raises `Refused`, `OutcomeUnknownError`, or what the connection raises."""
        lock = self._locks.setdefault(workspace_id, asyncio.Lock())
        async with lock:  # commands of this process wait here for each other, so that they do not conflict in Postgres
            attempt = _Attempt(self, workspace_id, command, at, origin, reply, hold)
            committed = await attempt.run()
        if committed.events:
            self._committed(workspace_id, committed)
        return committed

    async def load(self, workspace_id: UUID) -> Workspace | None:
        """The workspace as it is in Postgres now."""
        async with acquire(self.pool) as connection:
            head = await self.aggregates.load(connection, workspace_id)
        return head.workspace

    async def close(self) -> None:
        """Waits until the mementos that are being stored are in Postgres."""
        await asyncio.gather(*self._background, return_exceptions=True)

    def _committed(self, workspace_id: UUID, committed: Committed) -> None:
        self.metrics.event_append.inc(len(committed.events))
        self._on_commit(workspace_id, committed.events)
        after = 0 if committed.workspace is None else committed.workspace.version
        if memento_due(after - len(committed.events), after):
            task = asyncio.create_task(self._store_memento(workspace_id))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _store_memento(self, workspace_id: UUID) -> None:
        memento = await self.aggregates.memento(workspace_id)
        if memento is None:
            return
        try:
            async with acquire(self.pool) as connection:
                await put_memento(connection, workspace_id, memento)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            survived(self.metrics, "memento", error, "memento_not_stored", workspace_id=str(workspace_id))

    async def settle(self, write: CommandWrite) -> CommitResult | None:
        """The result of a commit whose connection broke, or None if nothing was committed.

        Raises `OutcomeUnknownError` if the database does not answer within the settle time.
        """
        deadline = asyncio.get_running_loop().time() + self._settle_s
        while True:
            try:
                async with acquire(self.pool, self._settle_s) as connection:
                    return await settled(connection, write)
            except (*CONNECTION_LOST, *ROLLED_BACK) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise OutcomeUnknownError("The database went away while the command was committed.") from error
                await asyncio.sleep(_RETRY_SETTLE_S)


class _Attempt:
    """The execution of one command, with what every try needs."""

    def __init__(
        self,
        path: WritePath,
        workspace_id: UUID,
        command: Command,
        at: datetime,
        origin: Origin,
        reply: Reply | None,
        hold: Hold | None,
    ) -> None:
        self._path = path
        self._workspace_id = workspace_id
        self._command = command
        self._at = at
        self._origin = origin
        self._reply = reply
        self._hold = hold

    async def run(self) -> Committed:
        fresh = False
        for _ in range(MAX_CONFLICTS):
            head = await self._head(fresh=fresh)
            try:
                events = decide(self._command, head.workspace)
            except Refused:
                if not fresh:
                    fresh = True
                    continue
                replayed = await self._replayed()
                if replayed is None:
                    raise
                return replayed
            committed = await self._commit(head, events)
            if committed is not None:
                return committed
            self._path.metrics.event_conflicts.inc()
            fresh = True
        raise Refused(
            ErrorCode.UNAVAILABLE,
            f"The workspace changed {MAX_CONFLICTS} times while the command was being decided.",
            "Repeat the request.",
        )

    async def _head(self, *, fresh: bool) -> WorkspaceHead:
        aggregates = self._path.aggregates
        cached = aggregates.cached(self._workspace_id)
        if cached is not None and not fresh:
            return cached
        async with acquire(self._path.pool) as connection:
            return await aggregates.load(connection, self._workspace_id)

    async def _replayed(self) -> Committed | None:
        """The stored answer if this request was executed before: a repeated request is refused, too."""
        key = self._reply.key if self._reply is not None else None
        if key is None:
            return None
        async with acquire(self._path.pool) as connection:
            known = await idempotent_answer(connection, key)
        return None if known is None else self._stored_answer(known)

    async def _commit(self, head: WorkspaceHead, events: list[Event]) -> Committed | None:
        after = fold(self._workspace_id, events, head.workspace)
        if after is None:
            raise AssertionError("after every decision its workspace exists")
        write = self._write(head, events, after)
        async with acquire(self._path.pool) as connection:  # outside of try: if this fails, the write was never sent
            try:
                recorded = await record(connection, write)
            except ROLLED_BACK:
                return None
            except asyncpg.DiskFullError as error:
                await self._use_reserve(error)
                return None
            except CONNECTION_LOST:
                recorded = None
        if recorded is None:
            recorded = await self._path.settle(write)
        return None if recorded is None else self._concluded(recorded, write, events, after)

    async def _use_reserve(self, error: asyncpg.DiskFullError) -> None:
        """Makes room on the full disk so that the command can be repeated; raises if it may not use the reserve.

        Half of it is for drops and cancels alone. Other reports of executors may use the rest: a lane moves on to its
        drops only if the tasks before them end.
        """
        reserve, reported = self._path.reserve, self._hold is not None
        keep = 0.0 if _frees_space(self._command) else KEPT_FOR_DROPS
        admitted = reported or _frees_space(self._command)
        if reserve is not None and admitted and await asyncio.to_thread(partial(reserve.make_room, keep=keep)):
            return
        if reported:
            raise error
        data_dir = reserve.data_dir if reserve is not None and reserve.exists else None
        raise Refused(ErrorCode.DISK_FULL, disk_full_detail(error, data_dir), DISK_FULL_HINT) from error

    def _concluded(
        self, recorded: CommitResult, write: CommandWrite, events: list[Event], after: Workspace
    ) -> Committed | None:
        match recorded.outcome:
            case Outcome.COMMITTED:
                if events:
                    self._path.aggregates.keep(self._workspace_id, WorkspaceHead(after, write.events[-1].hash))
                return Committed(events, after, write.status, recorded.answer)
            case Outcome.CONFLICT:
                if (recorded.version or 0) <= write.expected:
                    # The cached state is not old: it belongs to another log. The database was restored or failed over.
                    self._path.aggregates.forget(self._workspace_id)
                return None
            case Outcome.STALE_FENCE:
                raise Refused(
                    ErrorCode.LEASE_LOST, "Another claim holds the lane under a newer fence: stop, and commit nothing."
                )
            case Outcome.IN_FLIGHT:
                raise Refused(
                    ErrorCode.IDEMPOTENCY_IN_FLIGHT,
                    "The first request with this Idempotency-Key is still being executed.",
                    "Wait a moment and repeat the request: the API then returns the stored answer.",
                )
            case _:
                return self._stored_answer(recorded)

    def _stored_answer(self, recorded: CommitResult) -> Committed:
        if recorded.outcome is Outcome.REUSED:
            raise Refused(
                ErrorCode.IDEMPOTENCY_KEY_REUSED,
                "Another request used this Idempotency-Key.",
                "Use a new key for a new request. To repeat a request, send it unchanged with its own key.",
            )
        return Committed([], None, recorded.status or 200, recorded.answer, replayed=True)

    def _write(self, head: WorkspaceHead, events: list[Event], after: Workspace) -> CommandWrite:
        metadata = Metadata(self._at, **msgspec.structs.asdict(self._origin))
        stored_events: list[NewEvent] = []
        previous = head.hash
        for version, event in enumerate(events, head.version + 1):
            recorded = RecordedEvent(self._workspace_id, version, event, metadata)
            stored = self._path.mapper.to_stored_event(recorded)
            previous = next_hash(previous, self._workspace_id, version, stored.topic, stored.state)
            task_id, snapshot_id = getattr(event, "task_id", None), getattr(event, "snapshot_id", None)
            stored_events.append(NewEvent(stored.topic, stored.state, previous, task_id, snapshot_id))
        status, show = (200, None) if self._reply is None else self._reply.describe(events, after)
        return CommandWrite(
            workspace_id=self._workspace_id,
            expected=head.version,
            previous_hash=head.hash,
            events=stored_events,
            occurred_at=self._at,
            actor=self._origin.actor,
            request_id=self._origin.request_id,
            traceparent=self._origin.traceparent,
            changes=merged(change for event in events for change in project(self._workspace_id, event, metadata)),
            steps=_queue_steps(events, head.version),
            key=None if self._reply is None else self._reply.key,
            status=status,
            show=show,
            hold=self._hold,
        )


def _frees_space(command: Command) -> bool:
    """Whether it is part of a drop, or can release what blocks one. A drop is the only task that makes no tree."""
    match command:
        case DropSnapshot() | CancelTask() | FinishDrop() | StartTask(tree=None):
            return True
        case _:
            return False


def _queue_steps(events: list[Event], before: int) -> list[dict[str, Any]]:
    """The process manager's steps for the queue. A queued task's order is the version of the event that queued it."""
    steps: list[dict[str, Any]] = []
    for version, reactions in enumerate(react(events), before + 1):
        for step in reactions:
            row: dict[str, Any] = msgspec.to_builtins(step)
            steps.append({**row, "seq": version} if isinstance(step, Enqueue) else row)
    return steps
