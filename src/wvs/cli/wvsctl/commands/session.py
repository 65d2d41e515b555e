"""`wvsctl session …`."""

import uuid
from typing import Annotated

from cyclopts import App, Parameter

from wvs.cli.wvsctl.actions.arguments import Flag, Workspace
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.listing import Paging, show_list
from wvs.cli.wvsctl.actions.sessions import SESSIONS, SessionDocument, show_session
from wvs.cli.wvsctl.api.client import path_of

app = App(name="session", help="List the agents that a freeze waits for, and evict one.")


@app.command(name="list")
def list_(workspace: Workspace, /, *, ended: Flag = False, paging: Paging = None, run: Run) -> None:
    """List the sessions of a workspace, newest first. Every active session must freeze for a snapshot.

    Parameters
    ----------
    ended
        Also sessions that ended or were evicted.
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
    """Exclude a session from all further freezes. Asks for confirmation.

    First make sure that its processes have ended: a process that writes during a snapshot makes the snapshot fail.

    Parameters
    ----------
    reason
        Reason, for the audit log.
    """
    run.confirm(f"freezes will no longer wait for session {session}, even if its agent still writes")
    body = {} if reason is None else {"reason": reason}
    key = run.options.idempotency_key or str(uuid.uuid4())
    show_session(run, run.client.write("POST", path_of("sessions", session, "evict"), body, key=key).body)
