"""The fields of the API's audit documents that the console reads."""

from base64 import b64decode
from binascii import Error as Base64Error
from datetime import datetime
from typing import Any

from msgspec import Struct

from wvs.cli.wvsctl.api.documents import CurrentDocument, SnapshotDocument, TaskDocument, WorkspaceDocument


class EventDocument(Struct, frozen=True):
    """One event, as in a list or with all details of its request."""

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


class SnapshotPage(Struct, frozen=True):
    """A page of snapshots at an earlier version."""

    items: list[SnapshotDocument]
    next_cursor: str | None = None


class TaskPage(Struct, frozen=True):
    """A page of tasks at an earlier version."""

    items: list[TaskDocument]
    next_cursor: str | None = None


class HistoryDocument(Struct, frozen=True):
    """A workspace at an earlier version."""

    version: int
    latest_version: int
    position: str
    occurred_at: datetime
    workspace: WorkspaceDocument
    current: CurrentDocument
    snapshots: SnapshotPage
    tasks: TaskPage
    live_tree: str | None = None


class StoredEvent(Struct, frozen=True, omit_defaults=False):
    """An event as stored: its bytes in base64, and the columns beside them."""

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
        """The name of the event in a finding."""
        return f"event {self.version} of {self.workspace_id} ({self.type}, position {self.position})"

    def state_bytes(self) -> bytes | None:
        """The stored bytes; None if `state` is not base64."""
        try:
            return b64decode(self.state, validate=True)
        except (Base64Error, ValueError):
            return None


class Head(Struct, frozen=True):
    """The last event of a chain, according to the service or an export."""

    workspace_id: str
    version: int | None
    hash: str | None


class StoredEvents(Struct, frozen=True):
    """A page of the stored log."""

    items: list[StoredEvent]
    next_cursor: str | None = None


class Heads(Struct, frozen=True):
    """A page of heads, and the position up to which the log was complete when the service read them."""

    position: str
    items: list[Head]
    next_cursor: str | None = None


class Chain(Struct, frozen=True):
    """A page of one workspace's chain, with the chain's head."""

    head: Head
    items: list[StoredEvent]
    next_version: int | None = None
