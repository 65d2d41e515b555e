"""`wvsctl session …`."""

import uuid
from typing import Annotated

from cyclopts import App, Parameter

from wvs.cli.wvsctl.actions.arguments import Flag, Workspace
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.listing import Paging, show_list
from wvs.cli.wvsctl.actions.sessions import SESSIONS, SessionDocument, show_session
from wvs.cli.wvsctl.api.client import path_of

app = App(name="session", help="See which agents a freeze waits for, and take one out.")


@app.command(name="list")
def list_(workspace: Workspace, /, *, ended: Flag = False, paging: Paging = None, run: Run) -> None:
    """List the sessions of a workspace, newest first: every one of them has to stop for a snapshot.

    Parameters
    ----------
    ended
        Those that ended or were evicted, too.
    """
    filters = (("all", "true" if ended else None),)
    show_list(run, path_of("workspaces", workspace, "sessions"), filters, SESSIONS, SessionDocument, paging)


@app.command
def evict(
    session: Annotated[str, Parameter(help="Id (sess_…) of the session.")],
    /,
    *,
    reason: str | None = None,
    run: Run,
) -> None:
    """Take a session out of every freeze from now on: you answer for its silence. Asks first.

    See first that its processes are gone: what still runs can write while a snapshot is taken, which then fails.

    Parameters
    ----------
    reason
        Why, for the audit.
    """
    run.confirm(f"freezes will no longer wait for session {session}, whether it still writes or not")
    body = {} if reason is None else {"reason": reason}
    key = run.options.idempotency_key or str(uuid.uuid4())
    show_session(run, run.client.write("POST", path_of("sessions", session, "evict"), body, key=key).body)
