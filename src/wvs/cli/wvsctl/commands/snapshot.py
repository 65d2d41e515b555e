"""`wvsctl snapshot …`."""

from typing import Annotated

from cyclopts import App, Parameter

from wvs.cli.wvsctl.actions.arguments import Flag, Labels, Snapshot, SnapshotStateChoice, Workspace, parse_labels
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.listing import Paging, show_list
from wvs.cli.wvsctl.actions.operations import OperationRequest, run_operation
from wvs.cli.wvsctl.actions.showing import show_snapshot
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.documents import SnapshotDocument
from wvs.cli.wvsctl.output.tables import SNAPSHOTS

app = App(name="snapshot", help="Take snapshots of a live tree, show them and drop them.")


@app.command
def create(
    workspace: Workspace,
    /,
    *,
    message: Annotated[str | None, Parameter(alias="-m")] = None,
    label: Labels = None,
    run: Run,
) -> None:
    """Take a snapshot: freeze every agent, clone the live tree, and prove that no process wrote meanwhile.

    Parameters
    ----------
    message
        Why you take the snapshot.
    """
    body = {"labels": parse_labels(label)} | ({} if message is None else {"message": message})
    run_operation(run, OperationRequest("POST", path_of("workspaces", workspace, "snapshots"), body), "snapshot")


@app.command
def get(workspace: Workspace, snapshot: Snapshot, /, *, run: Run) -> None:
    """Show a snapshot with the proof of its consistency, also after it was dropped."""
    show_snapshot(run, run.client.get(path_of("workspaces", workspace, "snapshots", snapshot)).body)


@app.command(name="list")
def list_(
    workspace: Workspace,
    /,
    *,
    state: SnapshotStateChoice = None,
    label: str | None = None,
    include_deleted: Flag = False,
    paging: Paging = None,
    run: Run,
) -> None:
    """List the snapshots of a workspace, newest first.

    Parameters
    ----------
    state
        Only snapshots in this state.
    label
        Only snapshots with this label, KEY=VALUE.
    include_deleted
        Also dropped snapshots.
    """
    filters = (("state", state), ("label", label), ("include_deleted", "true" if include_deleted else None))
    path = path_of("workspaces", workspace, "snapshots")
    show_list(run, path, filters, SNAPSHOTS, SnapshotDocument, paging)


@app.command
def drop(workspace: Workspace, snapshot: Snapshot, /, *, run: Run) -> None:
    """Delete a snapshot's directory. Refused while the snapshot is current or a task uses it. Asks for confirmation."""
    run.confirm(f"this deletes snapshot {snapshot} of workspace {workspace} and cannot be undone")
    run_operation(run, OperationRequest("DELETE", path_of("workspaces", workspace, "snapshots", snapshot)), "snapshot")
