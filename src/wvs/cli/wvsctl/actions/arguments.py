"""Arguments that several commands have."""

from typing import Annotated, TypeAlias

from cyclopts import Parameter

from wvs.cli.wvsctl.actions.completing import snapshot_ids, task_ids, workspace_names
from wvs.cli.wvsctl.api.failures import UsageFailure
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState

Flag: TypeAlias = Annotated[bool, Parameter(negative=(), show_default=False)]
Workspace: TypeAlias = Annotated[str, Parameter(help="Name or id (ws_…) of the workspace.", completer=workspace_names)]
Snapshot: TypeAlias = Annotated[str, Parameter(help="Id (snap_…) of the snapshot.", completer=snapshot_ids)]
Task: TypeAlias = Annotated[str, Parameter(help="Id (task_…) of the task.", completer=task_ids)]
Labels: TypeAlias = Annotated[list[str] | None, Parameter(negative=(), help="KEY=VALUE; may be repeated.")]
# The user types states and kinds as the API writes them, with underscores.
_AS_WRITTEN = Parameter(name_transform=str.lower)
WorkspaceStateChoice: TypeAlias = Annotated[WorkspaceState | None, _AS_WRITTEN]
SnapshotStateChoice: TypeAlias = Annotated[SnapshotState | None, _AS_WRITTEN]
TaskStateChoice: TypeAlias = Annotated[TaskState | None, _AS_WRITTEN]
TaskKindChoice: TypeAlias = Annotated[TaskKind | None, _AS_WRITTEN]


def parse_labels(texts: list[str] | None) -> dict[str, str]:
    """Parses labels of the form `KEY=VALUE`; raises `UsageFailure` for a text without `=` or a repeated key."""
    labels: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageFailure(f"--label {text!r} does not have the form KEY=VALUE")
        if key in labels:
            raise UsageFailure(f"--label {key} is given more than once")
        labels[key] = value
    return labels
