"""The fields of the API's documents that the console reads.

States and kinds are plain strings and unknown fields are ignored, so that the console also reads a newer API.
"""

from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from wvs.domain.states import TaskState

FINAL_TASK_STATES: Final = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})


class ErrorDocument(Struct, frozen=True):
    """Why a task, a snapshot or a workspace failed."""

    code: str
    detail: str
    hint: str = ""
    retryable: bool = False


class ProgressDocument(Struct, frozen=True):
    """The progress of a running task; an unknown total is None."""

    phase: str | None = None
    files_done: int | None = None
    files_total: int | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None


class WaitingDocument(Struct, frozen=True):
    """Why an accepted task does not run."""

    reason: str
    detail: str = ""


class TaskDocument(Struct, frozen=True):
    """One asynchronous operation."""

    id: str
    workspace_id: str
    kind: str
    state: str
    created_at: datetime
    snapshot_id: str | None = None
    noop: bool = False
    attempt: int = 0
    max_attempts: int = 0
    progress: ProgressDocument | None = None
    error: ErrorDocument | None = None
    notes: tuple[str, ...] = ()
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_attempt_at: datetime | None = None
    waiting_for: WaitingDocument | None = None

    @property
    def is_final(self) -> bool:
        """Whether the task has ended; only a user can then restart it."""
        return self.state in FINAL_TASK_STATES


class WorkspaceDocument(Struct, frozen=True):
    """One workspace."""

    id: str
    name: str
    state: str
    created_at: datetime
    labels: dict[str, str] = {}
    current_snapshot_id: str | None = None
    path: str | None = None
    epoch: int = 0
    error: ErrorDocument | None = None
    disabled_at: datetime | None = None
    path_replaced_by: str | None = None


class FrozenDocument(Struct, frozen=True):
    """What a session stopped."""

    kind: str
    name: str
    processes: int


class MemberDocument(Struct, frozen=True):
    """One session's part in a freeze."""

    session_id: str
    token: str = ""
    flush: str = ""
    frozen: FrozenDocument | None = None


class BystanderDocument(Struct, frozen=True):
    """A process that held the live tree and was not stopped."""

    pid: int
    command: str
    host: str
    how: tuple[str, ...] = ()


class BystandersDocument(Struct, frozen=True):
    """What the look for bystanders found, and where it could not look."""

    found: int
    named: tuple[BystanderDocument, ...] = ()
    unseen: tuple[str, ...] = ()


class CertificateDocument(Struct, frozen=True):
    """The proof that no process wrote while a tree was cloned."""

    freeze: int
    stamp_before: str
    stamp_after: str
    engine: str
    frozen_at: datetime
    resumed_at: datetime
    members: tuple[MemberDocument, ...] = ()
    bystanders: BystandersDocument | None = None


class SnapshotDocument(Struct, frozen=True):
    """One snapshot."""

    id: str
    workspace_id: str
    state: str
    created_at: datetime
    message: str | None = None
    labels: dict[str, str] = {}
    engine: str | None = None
    files: int | None = None
    bytes: int | None = None
    notes: tuple[str, ...] = ()
    certificate: CertificateDocument | None = None
    error: ErrorDocument | None = None
    ready_at: datetime | None = None
    deleted_at: datetime | None = None


class CurrentDocument(Struct, frozen=True):
    """The current snapshot of a workspace, and the path of its live tree."""

    snapshot_id: str | None
    path: str | None
    epoch: int


class PageDocument(Struct, frozen=True):
    """One page of a list; each item keeps the bytes that the API sent."""

    items: list[msgspec.Raw]
    next_cursor: str | None = None


class FieldProblem(Struct, frozen=True, rename={"place": "in"}):
    """One invalid field of a request."""

    field: str = ""
    problem: str = ""
    place: str = ""


class RefusalDocument(Struct, frozen=True):
    """The problem document (RFC 9457) of a refused request, with the members that some codes add."""

    code: str
    detail: str
    title: str = ""
    hint: str = ""
    request_id: str = ""
    blockers: tuple[dict[str, Any], ...] = ()
    errors: tuple[FieldProblem, ...] = ()
