"""Prints sessions."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from wvs.cli.wvsctl.actions.invocation import Invocation
from wvs.cli.wvsctl.output.layout import NOTHING, moment
from wvs.cli.wvsctl.output.tables import Column


class SessionDocument(Struct, frozen=True):
    """One session, which an agent registered."""

    id: str
    workspace_id: str
    state: str
    agent: str
    host: str
    registered_at: datetime
    lease_until: datetime
    pid: int | None = None
    epoch: int = 0
    lease_expired: bool = False
    reason: str | None = None
    ended_at: datetime | None = None

    @property
    def condition(self) -> str:
        """Its state, marked as silent if its lease has expired: a freeze still needs the session to acknowledge."""
        return f"{self.state}, silent" if self.lease_expired else self.state


SESSIONS: Sequence[Column[SessionDocument]] = (
    Column("ID", lambda it: it.id),
    Column("STATE", lambda it: it.condition),
    Column("HOST", lambda it: it.host),
    Column("PID", lambda it: NOTHING if it.pid is None else str(it.pid), right=True),
    Column("EPOCH", lambda it: str(it.epoch), right=True),
    Column("REGISTERED", lambda it: moment(it.registered_at)),
    Column("AGENT", lambda it: it.agent, free=True),
    Column("REASON", lambda it: it.reason or NOTHING, free=True),
)


def show_session(run: Invocation, body: bytes) -> None:
    """Prints a session."""
    if run.screen.as_json:
        run.screen.show_json(body)
        return
    session = run.client.decode_bytes(body, SessionDocument)
    rows = [
        ("session", session.id),
        ("workspace", session.workspace_id),
        ("state", session.condition),
        ("agent", session.agent),
        ("host", session.host),
        ("pid", NOTHING if session.pid is None else str(session.pid)),
        ("registered", moment(session.registered_at)),
        ("lease until", moment(session.lease_until)),
        ("ended", moment(session.ended_at)),
        ("reason", session.reason or NOTHING),
    ]
    run.screen.show_rows(rows)
