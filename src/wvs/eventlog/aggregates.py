"""Workspaces by version: cached, fast-forwarded, and loaded from a memento where they are cold.

A command therefore costs the same at 10 and at 100,000 snapshots. The cache is bounded by the entries that its
workspaces hold (snapshots and tasks), not by their number.
"""

from collections import OrderedDict
from typing import Final
from uuid import UUID

import msgspec
from immutables import Map
from msgspec import Struct

from wvs.domain.evolve import evolve
from wvs.domain.states import TaskState, WorkspaceState
from wvs.domain.workspace import SCHEMA_VERSION, Snapshot, Task, Workspace
from wvs.eventlog.chain import GENESIS
from wvs.eventlog.codec import EventMapper, StoredEvent
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

MEMENTO_EVERY: Final = 500
"""Events between two mementos of a workspace: what a cold load replays at most."""

CACHE_ENTRIES: Final = 1_000_000
_BATCH: Final = 5_000

_EVENTS_AFTER: Final = sql("stream_events_after")
_MEMENTO_GET: Final = sql("memento_get")
_MEMENTO_PUT: Final = sql("memento_put")


class Head(Struct, frozen=True):
    """A workspace as of its last known event; `workspace` is None and the hash is genesis before the first."""

    workspace: Workspace | None = None
    hash: bytes = GENESIS

    @property
    def version(self) -> int:
        return 0 if self.workspace is None else self.workspace.version


class _Memento(Struct, frozen=True):
    """A workspace as plain maps, for msgpack."""

    id: UUID
    version: int
    state: WorkspaceState
    current: UUID | None
    epoch: int
    live_tree: str | None
    fence: int
    init_task: UUID | None
    queued: tuple[UUID, ...]
    running: UUID | None
    movers: tuple[UUID, ...]
    snapshots: tuple[Snapshot, ...]
    tasks: tuple[Task, ...]
    ended: dict[UUID, TaskState]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Memento)


def encode_memento(workspace: Workspace) -> bytes:
    """The bytes of a memento of this release's `SCHEMA_VERSION`."""
    values = {name: getattr(workspace, name) for name in _Memento.__struct_fields__}
    values["snapshots"] = tuple(workspace.snapshots.values())
    values["tasks"] = tuple(workspace.tasks.values())
    values["ended"] = dict(workspace.ended)
    return _encoder.encode(_Memento(**values))


def decode_memento(state: bytes) -> Workspace:
    """The workspace; raises `msgspec.ValidationError` if the bytes are of another shape."""
    memento = _decoder.decode(state)
    values = {name: getattr(memento, name) for name in _Memento.__struct_fields__}
    values["snapshots"] = Map((s.id, s) for s in memento.snapshots)
    values["tasks"] = Map((t.id, t) for t in memento.tasks)
    values["ended"] = Map(memento.ended)
    return Workspace(**values)


class Aggregates:
    """The cache. Its answers may be old; the commit checks the version, and `forward` catches up."""

    def __init__(self, mapper: EventMapper, max_entries: int = CACHE_ENTRIES) -> None:
        self._mapper = mapper
        self._heads: OrderedDict[UUID, Head] = OrderedDict()
        self._entries = 0
        self._max_entries = max_entries

    def cached(self, workspace_id: UUID) -> Head | None:
        """The head as last seen here, without asking Postgres."""
        head = self._heads.get(workspace_id)
        if head is not None:
            self._heads.move_to_end(workspace_id)
        return head

    async def load(self, connection: Connection, workspace_id: UUID) -> Head:
        """The head as Postgres has it now: from the cache or a memento, then forward."""
        head = self.cached(workspace_id) or await self._from_memento(connection, workspace_id)
        return await self.forward(connection, workspace_id, head)

    async def forward(self, connection: Connection, workspace_id: UUID, head: Head) -> Head:
        """`head` with every event that was committed since."""
        while rows := await connection.fetch(_EVENTS_AFTER, workspace_id, head.version, _BATCH):
            workspace = head.workspace
            for version, topic, state, _ in rows:
                stored = StoredEvent(workspace_id, version, topic, state)
                workspace = evolve(workspace_id, workspace, self._mapper.to_domain_event(stored).event)
            head = Head(workspace, rows[-1]["hash"])
            if len(rows) < _BATCH:
                break
        self.keep(workspace_id, head)
        return head

    def keep(self, workspace_id: UUID, head: Head) -> None:
        """Remembers `head`, unless a later one is known, and forgets the longest unused beyond the bound."""
        if head.workspace is None:
            return
        known = self._heads.get(workspace_id)
        if known is not None and known.version >= head.version:
            return
        self._entries += _entries(head) - _entries(known)
        self._heads[workspace_id] = head
        self._heads.move_to_end(workspace_id)
        while self._entries > self._max_entries and len(self._heads) > 1:
            _, dropped = self._heads.popitem(last=False)
            self._entries -= _entries(dropped)

    def forget(self, workspace_id: UUID) -> None:
        """Drops what is cached of a workspace, so that the next load asks Postgres."""
        self._entries -= _entries(self._heads.pop(workspace_id, None))

    async def store_memento(self, connection: Connection, workspace_id: UUID) -> None:
        """Stores the cached head as the workspace's memento."""
        head = self._heads.get(workspace_id)
        if head is not None and head.workspace is not None:
            state = encode_memento(head.workspace)
            await connection.execute(_MEMENTO_PUT, workspace_id, head.version, SCHEMA_VERSION, head.hash, state)

    async def _from_memento(self, connection: Connection, workspace_id: UUID) -> Head:
        row = await connection.fetchrow(_MEMENTO_GET, workspace_id, SCHEMA_VERSION)
        if row is None:
            return Head()
        try:
            return Head(decode_memento(row["state"]), row["hash"])
        except (msgspec.ValidationError, msgspec.DecodeError):
            # A memento is never the truth: one that cannot be read costs a replay, nothing else.
            return Head()


def _entries(head: Head | None) -> int:
    if head is None or head.workspace is None:
        return 0
    workspace = head.workspace
    return 1 + len(workspace.snapshots) + len(workspace.tasks) + len(workspace.ended)
