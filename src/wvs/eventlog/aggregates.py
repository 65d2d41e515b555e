"""Workspaces by version: cached, fast-forwarded, and loaded from a memento where they are cold.

A command therefore costs the same at 10 and at 100,000 snapshots. The cache is bounded by the number of snapshots and
tasks that its workspaces hold, not by the number of workspaces.
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
"""Snapshots and tasks that the cache holds at most, some 550 bytes each."""

_BATCH: Final = 500
"""Events folded at a time: about 10 ms in which the event loop does no other work."""

log = structlog.get_logger(__name__)

_EVENTS_AFTER: Final = sql("stream_events_after")
_MEMENTO_GET: Final = sql("memento_get")
_MEMENTO_PUT: Final = sql("memento_put")


class WorkspaceHead(Struct, frozen=True):
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
    """The cache. A cached head may be outdated; the commit checks its version, and `forward` catches up."""

    def __init__(self, mapper: EventMapper, max_entries: int = CACHE_ENTRIES) -> None:
        self._mapper = mapper
        self._heads: OrderedDict[UUID, WorkspaceHead] = OrderedDict()
        self._entries = 0
        self._max_entries = max_entries

    def cached(self, workspace_id: UUID) -> WorkspaceHead | None:
        """The head that was cached last; does not ask Postgres."""
        head = self._heads.get(workspace_id)
        if head is not None:
            self._heads.move_to_end(workspace_id)
        return head

    async def load(self, connection: Connection, workspace_id: UUID) -> WorkspaceHead:
        """The head as Postgres has it now: from the cache or a memento, then forward.

        After a long replay this stores a memento.
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

    async def forward(self, connection: Connection, workspace_id: UUID, head: WorkspaceHead) -> WorkspaceHead:
        """`head` with every event that was committed after it."""
        while rows := await connection.fetch(_EVENTS_AFTER, workspace_id, head.version, _BATCH):
            workspace = head.workspace
            for version, topic, state, _ in rows:
                stored = StoredEvent(workspace_id, version, topic, state)
                workspace = evolve(workspace_id, workspace, self._mapper.to_domain_event(stored).event)
            head = WorkspaceHead(workspace, rows[-1]["hash"])
            if len(rows) < _BATCH:
                break
        self.keep(workspace_id, head)
        return head

    def keep(self, workspace_id: UUID, head: WorkspaceHead) -> None:
        """Caches `head`, unless a later one is cached, and evicts the least recently used heads beyond the bound."""
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
        """Evicts a workspace, so that its next load asks Postgres."""
        self._entries -= _entries(self._heads.pop(workspace_id, None))

    async def memento(self, workspace_id: UUID) -> Memento | None:
        """The cached head as bytes, for `put_memento`; None if the workspace is not cached."""
        head = self._heads.get(workspace_id)
        if head is None or head.workspace is None:
            return None
        return Memento(head.version, head.hash, await encode_memento(head.workspace))

    async def _from_memento(self, connection: Connection, workspace_id: UUID) -> WorkspaceHead:
        row = await connection.fetchrow(_MEMENTO_GET, workspace_id, SCHEMA_VERSION)
        if row is None:
            return WorkspaceHead()
        try:
            workspace = await decode_memento(row["state"])
        except DamagedMementoError as error:
            # The log is the truth: a memento that cannot be read costs a replay, nothing else.
            log.warning("memento_discarded", workspace_id=str(workspace_id), error=str(error))
            return WorkspaceHead()
        if (workspace.id, workspace.version) != (workspace_id, row["version"]):
            log.warning(
                "memento_discarded",
                workspace_id=str(workspace_id),
                error="the memento is of another workspace or version",
            )
            return WorkspaceHead()
        return WorkspaceHead(workspace, row["hash"])


async def put_memento(connection: Connection, workspace_id: UUID, memento: Memento) -> None:
    """Stores the memento of a workspace, unless a later one is stored."""
    await connection.execute(_MEMENTO_PUT, workspace_id, memento.version, SCHEMA_VERSION, memento.hash, memento.state)


def _entries(head: WorkspaceHead | None) -> int:
    if head is None or head.workspace is None:
        return 0
    workspace = head.workspace
    return 1 + len(workspace.snapshots) + len(workspace.tasks) + len(workspace.ended)
