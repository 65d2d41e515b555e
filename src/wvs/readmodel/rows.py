"""Rows of the read models, decoded from the JSON that Postgres makes of them.

Stored idempotent answers and fresh reads have the same form. Nulls may be absent.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.domain.values import Certificate, TaskError


class WorkspaceRow(Struct, frozen=True, kw_only=True):
    """A row of `wvs.workspaces`. `path_replaced_by` comes from its lane where one workspace is read."""

    id: UUID
    name: str
    state: WorkspaceState
    labels: dict[str, str]
    epoch: int
    created_at: datetime
    current_snapshot_id: UUID | None = None
    live_tree: str | None = None
    error: TaskError | None = None
    disabled_at: datetime | None = None
    path_replaced_by: str | None = None


class ReportRow(Struct, frozen=True):
    """The part of a snapshot's clone report that is shown."""

    notes: tuple[str, ...] = ()


class SnapshotRow(Struct, frozen=True, kw_only=True):
    """A row of `wvs.snapshots`."""

    id: UUID
    workspace_id: UUID
    state: SnapshotState
    labels: dict[str, str]
    created_at: datetime
    message: str | None = None
    engine: str | None = None
    files: int | None = None
    bytes: int | None = None
    report: ReportRow | None = None
    certificate: Certificate | None = None
    error: TaskError | None = None
    ready_at: datetime | None = None
    deleted_at: datetime | None = None


class ProgressRow(Struct, frozen=True):
    """The progress of a task. A total is None until it is known; all numbers are None if the engine reads no files."""

    phase: str
    files_done: int | None = None
    files_total: int | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None


class TaskRow(Struct, frozen=True, kw_only=True):
    """A row of `wvs.tasks`."""

    id: UUID
    workspace_id: UUID
    kind: TaskKind
    state: TaskState
    noop: bool
    attempt: int
    max_attempts: int
    created_at: datetime
    snapshot_id: UUID | None = None
    progress: ProgressRow | None = None
    error: TaskError | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_attempt_at: datetime | None = None
    notes: tuple[str, ...] | None = None


class AnswerRows(Struct, frozen=True):
    """The rows that the answer to a command shows."""

    workspace: WorkspaceRow | None = None
    snapshot: SnapshotRow | None = None
    task: TaskRow | None = None


_progress: Final = msgspec.json.Decoder(ProgressRow)

decode_workspace: Final = msgspec.json.Decoder(WorkspaceRow).decode
decode_snapshot: Final = msgspec.json.Decoder(SnapshotRow).decode
decode_answer: Final = msgspec.json.Decoder(AnswerRows).decode
_decode_task: Final = msgspec.json.Decoder(TaskRow).decode


def decode_task(row: bytes, running_progress: bytes | None) -> TaskRow:
    """The task. While it runs, its progress comes from the queue."""
    return with_progress(_decode_task(row), running_progress)


def with_progress(task: TaskRow, running_progress: bytes | None) -> TaskRow:
    """`task` with the progress from the queue, if there is any."""
    if running_progress is None:
        return task
    return msgspec.structs.replace(task, progress=_progress.decode(running_progress))
