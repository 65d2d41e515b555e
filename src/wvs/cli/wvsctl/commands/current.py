"""`wvsctl current …`."""

from cyclopts import App

from wvs.cli.wvsctl.actions.arguments import Flag, Snapshot, Workspace
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.operations import OperationRequest, run_operation
from wvs.cli.wvsctl.actions.showing import show_current
from wvs.cli.wvsctl.api.client import path_of

app = App(name="current", help="Show or change the current snapshot, from which the live tree was made.")


@app.command
def get(workspace: Workspace, /, *, run: Run) -> None:
    """Show the current snapshot, the path of the live tree, and the ETag for --if-match."""
    answer = run.client.get(path_of("workspaces", workspace, "current"))
    show_current(run, answer.body, answer.headers.get("etag"))


@app.command(name="set")
def set_(
    workspace: Workspace,
    snapshot: Snapshot,
    /,
    *,
    reset: Flag = False,
    if_match: str | None = None,
    run: Run,
) -> None:
    """Replace the live tree with the content of a snapshot. Changes that no snapshot holds are lost.

    Does nothing if the snapshot is already current.

    Parameters
    ----------
    reset
        Replace the live tree even if the snapshot is current, to discard changes. Asks for confirmation.
    if_match
        Change it only if the ETag, which `current get` shows, is still this one.
    """
    if reset:
        run.confirm(f"this discards the live tree of workspace {workspace} and replaces it with {snapshot}")
    body = {"snapshot_id": snapshot} | ({"reset": True} if reset else {})
    headers = {} if if_match is None else {"If-Match": quoted(if_match)}
    run_operation(run, OperationRequest("PUT", path_of("workspaces", workspace, "current"), body, headers), "current")


def quoted(etag: str) -> str:
    """The ETag in quotes, as the header requires: the shell has removed them."""
    return etag if etag == "*" or '"' in etag else f'"{etag}"'
