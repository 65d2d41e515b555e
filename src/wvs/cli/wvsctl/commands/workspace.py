"""`wvsctl workspace …`."""

import uuid

from cyclopts import App

from wvs.cli.wvsctl.actions.arguments import Labels, Workspace, WorkspaceStateChoice, parse_labels
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.listing import Paging, show_list
from wvs.cli.wvsctl.actions.operations import OperationRequest, run_operation
from wvs.cli.wvsctl.actions.showing import show_workspace
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.documents import WorkspaceDocument
from wvs.cli.wvsctl.api.failures import ConsoleFailure
from wvs.cli.wvsctl.output.tables import WORKSPACES

app = App(name="workspace", help="Create, show and disable workspaces.")


@app.command
def create(name: str, /, *, label: Labels = None, run: Run) -> None:
    """Create a workspace with an empty live tree.

    Parameters
    ----------
    name
        1 to 63 characters of a-z, 0-9 and -; unique among workspaces that are not disabled.
    """
    body = {"name": name, "labels": parse_labels(label)}
    run_operation(run, OperationRequest("POST", path_of("workspaces"), body), "workspace")


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
        Only workspaces in this state.
    name
        Only workspaces with this name, including disabled ones.
    """
    filters = (("state", state), ("name", name))
    show_list(run, path_of("workspaces"), filters, WORKSPACES, WorkspaceDocument, paging)


@app.command
def retry_init(workspace: Workspace, /, *, run: Run) -> None:
    """Initialize a workspace again after its initialization failed."""
    run_operation(run, OperationRequest("POST", path_of("workspaces", workspace, "retry-init")), "workspace")


@app.command
def disable(workspace: Workspace, /, *, reason: str | None = None, run: Run) -> None:
    """Disable a workspace for good: WVS keeps its data and accepts no more operations. Asks for confirmation.

    Parameters
    ----------
    reason
        Reason, for the audit log.
    """
    run.confirm(f"this disables workspace {workspace} and cannot be undone")
    body = {} if reason is None else {"reason": reason}
    key = run.options.idempotency_key or str(uuid.uuid4())
    answer = run.client.write("POST", path_of("workspaces", workspace, "disable"), body, key=key)
    show_workspace(run, answer.body)


@app.command
def path(workspace: Workspace, /, *, run: Run) -> None:
    """Print only the path of the live tree, where the agents work: cd "$(wvsctl workspace path NAME)"."""
    answer = run.client.get(path_of("workspaces", workspace))
    document = run.client.decode(answer, WorkspaceDocument)
    if document.path is None or document.epoch == 0:
        raise ConsoleFailure(
            f"workspace {document.name} has no live tree: it is {document.state}",
            f"to see it: wvsctl workspace get {document.id}",
        )
    if run.screen.as_json:
        run.screen.show_json(answer.body)
    else:
        run.screen.show(document.path)
