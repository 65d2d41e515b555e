"""Describes one resource: a label and a value per line."""

from collections.abc import Sequence

from wvs.cli.wvsctl.api.documents import (
    CurrentDocument,
    ErrorDocument,
    ProgressDocument,
    SnapshotDocument,
    TaskDocument,
    WorkspaceDocument,
)
from wvs.cli.wvsctl.output.certificate import describe_certificate
from wvs.cli.wvsctl.output.layout import NOTHING, counted, moment, number, pairs, size

Rows = Sequence[tuple[str, str]]


def workspace_rows(workspace: WorkspaceDocument) -> Rows:
    """The rows of a workspace."""
    return [
        ("workspace", workspace.id),
        ("name", workspace.name),
        ("state", workspace.state),
        ("path", workspace.path or NOTHING),
        *_replaced(workspace.path_replaced_by),
        ("current", workspace.current_snapshot_id or "none yet"),
        ("epoch", str(workspace.epoch)),
        ("labels", pairs(workspace.labels)),
        ("created", moment(workspace.created_at)),
        *_if_any("disabled", moment(workspace.disabled_at)),
        *_error(workspace.error),
    ]


def snapshot_rows(snapshot: SnapshotDocument) -> Rows:
    """The rows of a snapshot, with sentences that explain its certificate."""
    proof = describe_certificate(snapshot.certificate) if snapshot.certificate else []
    return [
        ("snapshot", snapshot.id),
        ("workspace", snapshot.workspace_id),
        ("state", snapshot.state),
        ("message", snapshot.message or NOTHING),
        ("labels", pairs(snapshot.labels)),
        (
            "content",
            NOTHING if snapshot.files is None else f"{counted(snapshot.files, 'file')}, {size(snapshot.bytes)}",
        ),
        *_notes(snapshot.notes),
        ("created", moment(snapshot.created_at)),
        ("ready", moment(snapshot.ready_at)),
        *_if_any("deleted", moment(snapshot.deleted_at)),
        *_error(snapshot.error),
        *(("proof" if index == 0 else "", line) for index, line in enumerate(proof)),
    ]


def current_rows(current: CurrentDocument, etag: str | None) -> Rows:
    """The rows of the current snapshot, with the ETag for `current set --if-match`."""
    return [
        ("current", current.snapshot_id or "none yet"),
        ("path", current.path or NOTHING),
        ("epoch", str(current.epoch)),
        *_if_any("etag", etag or NOTHING),
    ]


def task_rows(task: TaskDocument) -> Rows:
    """The rows of a task."""
    return [
        ("task", task.id),
        ("kind", task.kind),
        ("state", f"{task.state} (nothing to do)" if task.noop else task.state),
        ("workspace", task.workspace_id),
        *_if_any("snapshot", task.snapshot_id or NOTHING),
        ("attempt", f"{task.attempt} of {task.max_attempts}"),
        *_if_any("waiting", task.waiting_for.detail if task.waiting_for else NOTHING),
        *_if_any("progress", progress_text(task.progress)),
        ("created", moment(task.created_at)),
        ("started", moment(task.started_at)),
        ("finished", moment(task.finished_at)),
        *_if_any("next attempt", moment(task.next_attempt_at)),
        *_error(task.error),
        *_notes(task.notes),
    ]


def progress_text(progress: ProgressDocument | None) -> str:
    """The progress of a task, e.g. `clone: 12,000 of 20,761 files, 3.1 MiB of 8.0 MiB`."""
    if progress is None:
        return NOTHING
    parts = [
        _share(number(progress.files_done), number(progress.files_total), " files") if progress.files_done else "",
        _share(size(progress.bytes_done), size(progress.bytes_total), "") if progress.bytes_done else "",
    ]
    counts = ", ".join(part for part in parts if part)
    return f"{progress.phase or 'running'}: {counts}" if counts else progress.phase or "running"


def _share(done: str, total: str, unit: str) -> str:
    return f"{done}{unit}" if total in (NOTHING, done) else f"{done} of {total}{unit}"


def _if_any(label: str, value: str) -> Rows:
    return [] if value == NOTHING else [(label, value)]


def _notes(notes: Sequence[str]) -> Rows:
    return [("notes" if index == 0 else "", note) for index, note in enumerate(notes)]


def _replaced(stranger: str | None) -> Rows:
    if stranger is None:
        return []
    return [
        ("", f"WARNING: {stranger} is at the path instead of the live tree; snapshots fail."),
        ("", "The error of a snapshot says what to do. wvs volume check --repair moves it to quarantine."),
    ]


def _error(error: ErrorDocument | None) -> Rows:
    if error is None:
        return []
    hint = [("", error.hint)] if error.hint else []
    return [("error", f"{error.detail} [{error.code}]"), *hint]
