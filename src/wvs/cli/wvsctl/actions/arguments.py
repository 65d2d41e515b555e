"""Arguments that several commands take."""

from typing import Annotated, TypeAlias

from cyclopts import Parameter

from wvs.cli.wvsctl.actions.completing import snapshot_ids, task_ids, workspace_names
from wvs.cli.wvsctl.api.failures import UsageFailure
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState

Flag: TypeAlias = Annotated[bool, Parameter(negative=(), show_default=False)]
Workspace: TypeAlias = Annotated[str, Parameter(help="Name or id (ws_…) of the workspace.", completer=workspace_names)]
Snapshot: TypeAlias = Annotated[str, Parameter(help="Id (snap_…) of the snapshot.", completer=snapshot_ids)]
Task: TypeAlias = Annotated[str, Parameter(help="Id (task_…) of the task.", completer=task_ids)]
Labels: TypeAlias = Annotated[list[str] | None, Parameter(negative=(), help="KEY=VALUE; may be given several times.")]
# States and kinds are typed as the API writes them, with underscores.
_AS_WRITTEN = Parameter(name_transform=str.lower)
WorkspaceStateChoice: TypeAlias = Annotated[WorkspaceState | None, _AS_WRITTEN]
SnapshotStateChoice: TypeAlias = Annotated[SnapshotState | None, _AS_WRITTEN]
TaskStateChoice: TypeAlias = Annotated[TaskState | None, _AS_WRITTEN]
TaskKindChoice: TypeAlias = Annotated[TaskKind | None, _AS_WRITTEN]


def parse_labels(texts: list[str] | None) -> dict[str, str]:
    """Labels from `KEY=VALUE` each; raises `UsageFailure` for one without a `=` and for a key given twice."""
    labels: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageFailure(f"--label {text!r} is not of the form KEY=VALUE")
        if key in labels:
            raise UsageFailure(f"--label {key} is given twice")
        labels[key] = value
    return labels
