"""Shell completion of names and ids: queries the API when the user presses tab; offers nothing if that fails."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.api.documents import PageDocument, SnapshotDocument, TaskDocument, WorkspaceDocument
from wvs.cli.wvsctl.api.transport import DEFAULT_URL, Transport
from wvs.cli.wvsctl.output.layout import moment, printable

if TYPE_CHECKING:  # only completion needs this package
    from cyclopts.completion import CompletionContext

T = TypeVar("T")

_NEWEST: Final = [("limit", "50")]


def workspace_names(context: "CompletionContext") -> Mapping[str, str]:
    """The names of the newest workspaces that are not disabled."""
    workspaces = _newest(context, path_of("workspaces"), WorkspaceDocument)
    return {it.name: it.state for it in workspaces if it.state != "disabled"}


def snapshot_ids(context: "CompletionContext") -> Mapping[str, str]:
    """The newest snapshots of the workspace that the command line names."""
    workspace = context["workspace"].raw
    if workspace is None:
        return {}
    snapshots = _newest(context, path_of("workspaces", workspace, "snapshots"), SnapshotDocument)
    return {it.id: printable(f"{it.state} {moment(it.created_at)} {it.message or ''}".rstrip()) for it in snapshots}


def task_ids(context: "CompletionContext") -> Mapping[str, str]:
    """The newest tasks."""
    tasks = _newest(context, path_of("tasks"), TaskDocument)
    return {it.id: f"{it.kind} {it.state} {moment(it.created_at)}" for it in tasks}


def _newest(context: "CompletionContext", path: str, kind: type[T]) -> list[T]:
    option = context.get("--url")
    url = (option.raw if option else None) or os.environ.get("WVS_URL") or DEFAULT_URL
    client = Client(Transport(url), actor=None, notify=lambda _: None)
    page = client.decode(client.get(path, _NEWEST), PageDocument)
    return [client.decode_bytes(item, kind) for item in page.items]
