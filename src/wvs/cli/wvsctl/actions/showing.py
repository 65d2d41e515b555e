"""Prints one resource: the API's document with `--json`, otherwise one line per field."""

from wvs.cli.wvsctl.actions.invocation import Invocation
from wvs.cli.wvsctl.api.documents import CurrentDocument, SnapshotDocument, TaskDocument, WorkspaceDocument
from wvs.cli.wvsctl.output.views import Rows, current_rows, snapshot_rows, task_rows, workspace_rows


def show_workspace(run: Invocation, body: bytes) -> None:
    """Prints a workspace."""
    _show(run, body, workspace_rows(run.client.decode_bytes(body, WorkspaceDocument)))


def show_snapshot(run: Invocation, body: bytes) -> None:
    """Prints a snapshot with its certificate."""
    _show(run, body, snapshot_rows(run.client.decode_bytes(body, SnapshotDocument)))


def show_current(run: Invocation, body: bytes, etag: str | None = None) -> None:
    """Prints which snapshot is current."""
    _show(run, body, current_rows(run.client.decode_bytes(body, CurrentDocument), etag))


def show_task(run: Invocation, body: bytes) -> None:
    """Prints a task."""
    _show(run, body, task_rows(run.client.decode_bytes(body, TaskDocument)))


def _show(run: Invocation, body: bytes, rows: Rows) -> None:
    if run.screen.as_json:
        run.screen.show_json(body)
    else:
        run.screen.show_rows(rows)
