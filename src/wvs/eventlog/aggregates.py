"""Workspaces by version: cached, fast-forwarded, and loaded from a memento where they are cold.

A command therefore costs the same at 10 and at 100,000 snapshots. The cache is bounded by the entries that its
workspaces hold (snapshots and tasks), not by their number.
"""

from collections import OrderedDict
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from wvs.domain.evolve import evolve
from wvs.domain.workspace import SCHEMA_VERSION, Workspace
from wvs.eventlog.chain import GENESIS
from wvs.eventlog.codec import EventMapper, StoredEvent
from wvs.eventlog.mementos import DamagedMementoError, decode_memento, encode_memento, memento_due
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

CACHE_ENTRIES: Final = 500_000
"""Snapshots and tasks that are kept in memory, some 550 bytes each."""

_BATCH: Final = 500
"""Events folded in one go: about 10 ms in which the event loop serves nobody else."""

log = structlog.get_logger(__name__)

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


class Memento(Struct, frozen=True):
    """A workspace's head as it is stored."""

    version: int
    hash: bytes
    state: bytes


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
        """The head as Postgres has it now: from the cache or a memento, then forward.

        Where that took a long replay, a memento is left for the next one.
        """
        known = self.cached(workspace_id)
        if known is not None:
            return await self.forward(connection, workspace_id, known)
        start = await self._from_memento(connection, workspace_id)
        head = await self.forward(connection, workspace_id, start)
        if memento_due(start.version, head.version):
            memento = await self.memento(workspace_id)
            if memento is not None:
                await put_memento(connection, workspace_id, memento)
        return head

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

    async def memento(self, workspace_id: UUID) -> Memento | None:
        """The cached head as bytes, for `put_memento`; None if the workspace is not cached."""
        head = self._heads.get(workspace_id)
        if head is None or head.workspace is None:
            return None
        return Memento(head.version, head.hash, await encode_memento(head.workspace))

    async def _from_memento(self, connection: Connection, workspace_id: UUID) -> Head:
        row = await connection.fetchrow(_MEMENTO_GET, workspace_id, SCHEMA_VERSION)
        if row is None:
            return Head()
        try:
            workspace = await decode_memento(row["state"])
        except DamagedMementoError as error:
            # A memento is never the truth: one that cannot be read costs a replay, nothing else.
            log.warning("memento_discarded", workspace_id=str(workspace_id), error=str(error))
            return Head()
        if (workspace.id, workspace.version) != (workspace_id, row["version"]):
            log.warning("memento_discarded", workspace_id=str(workspace_id), error="It is of another state.")
            return Head()
        return Head(workspace, row["hash"])


async def put_memento(connection: Connection, workspace_id: UUID, memento: Memento) -> None:
    """Stores the memento of a workspace, unless a later one is there."""
    await connection.execute(_MEMENTO_PUT, workspace_id, memento.version, SCHEMA_VERSION, memento.hash, memento.state)


def _entries(head: Head | None) -> int:
    if head is None or head.workspace is None:
        return 0
    workspace = head.workspace
    return 1 + len(workspace.snapshots) + len(workspace.tasks) + len(workspace.ended)
