"""The API's documents of the audit, as far as the console reads them."""

from base64 import b64decode
from binascii import Error as Base64Error
from datetime import datetime
from typing import Any

from msgspec import Struct

from wvs.cli.wvsctl.api.documents import CurrentDocument, SnapshotDocument, TaskDocument, WorkspaceDocument


class EventDocument(Struct, frozen=True):
    """One event of a list, or with everything that is known about its request."""

    position: str
    workspace_id: str
    version: int
    type: str
    occurred_at: datetime
    actor: str
    request_id: str
    hash: str
    data: dict[str, Any] = {}
    actor_verified: bool = False
    idempotency_key: str | None = None
    traceparent: str | None = None
    causation: str | None = None


class SnapshotsThen(Struct, frozen=True):
    """A page of snapshots as they were."""

    items: list[SnapshotDocument]
    next_cursor: str | None = None


class TasksThen(Struct, frozen=True):
    """A page of tasks as they were."""

    items: list[TaskDocument]
    next_cursor: str | None = None


class HistoryDocument(Struct, frozen=True):
    """A workspace as it was."""

    version: int
    latest_version: int
    position: str
    occurred_at: datetime
    workspace: WorkspaceDocument
    current: CurrentDocument
    snapshots: SnapshotsThen
    tasks: TasksThen
    live_tree: str | None = None


class StoredEvent(Struct, frozen=True, omit_defaults=False):
    """An event as it is stored, in base64, with the columns beside it."""

    position: str
    workspace_id: str
    version: int
    type: str
    state: str
    hash: str
    occurred_at: datetime
    actor: str
    request_id: str
    task_id: str | None = None
    snapshot_id: str | None = None

    @property
    def name(self) -> str:
        """How a finding calls it."""
        return f"event {self.version} of {self.workspace_id} ({self.type}, position {self.position})"

    def state_bytes(self) -> bytes | None:
        """The stored bytes; None if `state` is no base64."""
        try:
            return b64decode(self.state, validate=True)
        except (Base64Error, ValueError):
            return None


class Head(Struct, frozen=True):
    """Where a chain ends, according to whoever keeps it."""

    workspace_id: str
    version: int | None
    hash: str | None


class StoredEvents(Struct, frozen=True):
    """A page of the log as it is stored."""

    items: list[StoredEvent]
    next_cursor: str | None = None


class Heads(Struct, frozen=True):
    """A page of heads, and the position up to which the log was complete before them."""

    position: str
    items: list[Head]
    next_cursor: str | None = None


class Chain(Struct, frozen=True):
    """A piece of one workspace's chain with its head."""

    head: Head
    items: list[StoredEvent]
    next_version: int | None = None
