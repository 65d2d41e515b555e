"""`wvsctl snapshot …`."""

from typing import Annotated

from cyclopts import App, Parameter

from wvs.cli.wvsctl.actions.arguments import Flag, Labels, Snapshot, SnapshotStateChoice, Workspace, parse_labels
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.listing import Paging, show_list
from wvs.cli.wvsctl.actions.operations import Write, carry_out
from wvs.cli.wvsctl.actions.showing import show_snapshot
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.documents import SnapshotDocument
from wvs.cli.wvsctl.output.tables import SNAPSHOTS

app = App(name="snapshot", help="Take snapshots of a live tree, look at them, drop them.")


@app.command
def create(
    workspace: Workspace,
    /,
    *,
    message: Annotated[str | None, Parameter(alias="-m")] = None,
    label: Labels = None,
    run: Run,
) -> None:
    """Take a snapshot: every agent is frozen, the live tree cloned, and it is proven that nothing wrote meanwhile.

    Parameters
    ----------
    message
        Why, in words.
    """
    body = {"labels": parse_labels(label)} | ({} if message is None else {"message": message})
    carry_out(run, Write("POST", path_of("workspaces", workspace, "snapshots"), body), "snapshot")


@app.command
def get(workspace: Workspace, snapshot: Snapshot, /, *, run: Run) -> None:
    """Show a snapshot with the proof of its consistency; a dropped one too."""
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
        Only those in this state.
    label
        Only those with this label, KEY=VALUE.
    include_deleted
        Dropped ones too.
    """
    filters = (("state", state), ("label", label), ("include_deleted", "true" if include_deleted else None))
    path = path_of("workspaces", workspace, "snapshots")
    show_list(run, path, filters, SNAPSHOTS, SnapshotDocument, paging)


@app.command
def drop(workspace: Workspace, snapshot: Snapshot, /, *, run: Run) -> None:
    """Remove a snapshot's directory; refused while it is current or a task names it. Asks first."""
    run.confirm(f"snapshot {snapshot} of workspace {workspace} will be removed, which cannot be taken back")
    carry_out(run, Write("DELETE", path_of("workspaces", workspace, "snapshots", snapshot)), "snapshot")
