"""`wvsctl current …`."""

from cyclopts import App

from wvs.cli.wvsctl.actions.arguments import Flag, Snapshot, Workspace
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.operations import Write, carry_out
from wvs.cli.wvsctl.actions.showing import show_current
from wvs.cli.wvsctl.api.client import path_of

app = App(name="current", help="The snapshot that the live tree was last made from.")


@app.command
def get(workspace: Workspace, /, *, run: Run) -> None:
    """Show which snapshot is current, where the live tree is, and the ETag for --if-match."""
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
    """Make the live tree afresh from a snapshot; what it held and was in no snapshot is gone.

    Does nothing if the snapshot is current already.

    Parameters
    ----------
    reset
        Make it afresh even if the snapshot is current: the way back from a spoiled live tree. Asks first.
    if_match
        Only if current still has this ETag, as `current get` shows it.
    """
    if reset:
        run.confirm(f"the live tree of workspace {workspace} will be thrown away and made afresh from {snapshot}")
    body = {"snapshot_id": snapshot} | ({"reset": True} if reset else {})
    headers = {} if if_match is None else {"If-Match": quoted(if_match)}
    carry_out(run, Write("PUT", path_of("workspaces", workspace, "current"), body, headers), "current")


def quoted(etag: str) -> str:
    """An ETag as the header wants it: shells eat the quotes, so they are put back."""
    return etag if etag == "*" or '"' in etag else f'"{etag}"'
