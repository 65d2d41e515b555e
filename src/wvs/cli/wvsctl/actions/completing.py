"""What a shell offers for names and ids: asked of the API when tab is pressed, nothing if it cannot be asked."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.api.documents import PageDocument, SnapshotDocument, TaskDocument, WorkspaceDocument
from wvs.cli.wvsctl.api.transport import DEFAULT_URL, Transport
from wvs.cli.wvsctl.output.layout import moment, printable

if TYPE_CHECKING:  # a package that only a shell's question needs
    from cyclopts.completion import CompletionContext

T = TypeVar("T")

_NEWEST: Final = [("limit", "50")]


def workspace_names(context: "CompletionContext") -> Mapping[str, str]:
    """The names of the newest workspaces that are not disabled."""
    found = _newest(context, path_of("workspaces"), WorkspaceDocument)
    return {it.name: it.state for it in found if it.state != "disabled"}


def snapshot_ids(context: "CompletionContext") -> Mapping[str, str]:
    """The newest snapshots of the workspace that the line names."""
    workspace = context["workspace"].raw
    if workspace is None:
        return {}
    found = _newest(context, path_of("workspaces", workspace, "snapshots"), SnapshotDocument)
    return {it.id: printable(f"{it.state} {moment(it.created_at)} {it.message or ''}".rstrip()) for it in found}


def task_ids(context: "CompletionContext") -> Mapping[str, str]:
    """The newest tasks."""
    found = _newest(context, path_of("tasks"), TaskDocument)
    return {it.id: f"{it.kind} {it.state} {moment(it.created_at)}" for it in found}


def _newest(context: "CompletionContext", path: str, kind: type[T]) -> list[T]:
    typed = context.get("--url")
    url = (typed.raw if typed else None) or os.environ.get("WVS_URL") or DEFAULT_URL
    client = Client(Transport(url), actor=None, say=lambda _: None)
    page = client.decode(client.get(path, _NEWEST), PageDocument)
    return [client.decode_bytes(item, kind) for item in page.items]
