"""`wvsctl workspace …`."""

import uuid

from cyclopts import App

from wvs.cli.wvsctl.actions.arguments import Labels, Workspace, WorkspaceStateChoice, parse_labels
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.listing import Paging, show_list
from wvs.cli.wvsctl.actions.operations import Write, carry_out
from wvs.cli.wvsctl.actions.showing import show_workspace
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.documents import WorkspaceDocument
from wvs.cli.wvsctl.api.failures import ConsoleFailure
from wvs.cli.wvsctl.output.tables import WORKSPACES

app = App(name="workspace", help="Make workspaces, look at them, end them.")


@app.command
def create(name: str, /, *, label: Labels = None, run: Run) -> None:
    """Make a workspace with an empty live tree.

    Parameters
    ----------
    name
        1 to 63 of a-z, 0-9 and -; unique among workspaces that are not disabled.
    """
    body = {"name": name, "labels": parse_labels(label)}
    carry_out(run, Write("POST", path_of("workspaces"), body), "workspace")


@app.command
def get(workspace: Workspace, /, *, run: Run) -> None:
    """Show a workspace."""
    show_workspace(run, run.client.get(path_of("workspaces", workspace)).body)


@app.command(name="list")
def list_(*, state: WorkspaceStateChoice = None, name: str | None = None, paging: Paging = None, run: Run) -> None:
    """List workspaces, newest first.

    Parameters
    ----------
    state
        Only those in this state.
    name
        Only those with this name, disabled ones too.
    """
    filters = (("state", state), ("name", name))
    show_list(run, path_of("workspaces"), filters, WORKSPACES, WorkspaceDocument, paging)


@app.command
def retry_init(workspace: Workspace, /, *, run: Run) -> None:
    """Initialize a workspace again whose initialization failed."""
    carry_out(run, Write("POST", path_of("workspaces", workspace, "retry-init")), "workspace")


@app.command
def disable(workspace: Workspace, /, *, reason: str | None = None, run: Run) -> None:
    """End a workspace for good: data stays and can be read, nothing more is written. Asks first.

    Parameters
    ----------
    reason
        Why, for the audit.
    """
    run.confirm(f"workspace {workspace} will be disabled, which cannot be taken back")
    body = {} if reason is None else {"reason": reason}
    key = run.options.idempotency_key or str(uuid.uuid4())
    answer = run.client.write("POST", path_of("workspaces", workspace, "disable"), body, key=key)
    show_workspace(run, answer.body)


@app.command
def path(workspace: Workspace, /, *, run: Run) -> None:
    """Print the directory the agents work in, and nothing else: cd "$(wvsctl workspace path NAME)"."""
    answer = run.client.get(path_of("workspaces", workspace))
    document = run.client.decode(answer, WorkspaceDocument)
    if document.path is None or document.epoch == 0:
        raise ConsoleFailure(
            f"workspace {document.name} has no live tree: it is {document.state}",
            f"look at it: wvsctl workspace get {document.id}",
        )
    if run.screen.as_json:
        run.screen.show_json(answer.body)
    else:
        run.screen.show(document.path)
