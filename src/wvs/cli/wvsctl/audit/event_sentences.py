"""Describes events in sentences: what the actor did, and why."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from wvs.cli.wvsctl.audit.documents import EventDocument
from wvs.cli.wvsctl.output.layout import NOTHING, counted, moment, size
from wvs.cli.wvsctl.output.tables import Column

Data = Mapping[str, Any]


def _error(data: Data) -> str:
    error: Data = data.get("error") or {}
    return f"{error.get('detail', '?')} [{error.get('code', '?')}]"


def _because(text: Any) -> str:
    return f": {text}" if text else ""


def _content_of(data: Data) -> str:
    """What the clone's report says: its size, and the notes on what the engine could not keep."""
    report: Data = data.get("report") or {}
    notes = "".join(f"; note: {note}" for note in report.get("notes") or ())
    content = f"{counted(report.get('files'), 'file')}, {size(report.get('bytes'))}, engine {report.get('engine', '?')}"
    return content + notes


_SENTENCES: Final[Mapping[str, Callable[[Data], str]]] = {
    "workspace.created": lambda it: f"requested the workspace {it.get('name')}",
    "workspace.initialized": lambda it: f"created the live tree, engine {it.get('engine')}",
    "workspace.init_failed": lambda it: f"could not create the live tree: {_error(it)}",
    "workspace.init_retried": lambda _: "requested another attempt to create the live tree",
    "workspace.disabled": lambda it: f"disabled the workspace{_because(it.get('reason'))}",
    "snapshot.requested": lambda it: f"requested {it.get('snapshot_id')}{_because(it.get('message'))}",
    "snapshot.created": lambda it: f"took {it.get('snapshot_id')} ({_content_of(it)})",
    "snapshot.failed": lambda it: f"could not take {it.get('snapshot_id')}: {_error(it)}",
    "snapshot.lost": lambda it: f"found the directory of {it.get('snapshot_id')} missing: {it.get('detail')}",
    "snapshot.found": lambda it: f"found the directory of {it.get('snapshot_id')} again: {it.get('detail')}",
    "current.set_requested": lambda it: (
        f"requested {it.get('snapshot_id')} as the current snapshot{', with a reset' if it.get('reset') else ''}"
    ),
    "current.set_skipped": lambda it: f"kept {it.get('snapshot_id')}, which was already current",
    "current.set": lambda it: f"made {it.get('snapshot_id')} current, epoch {it.get('epoch')} ({_content_of(it)})",
    "current.set_failed": lambda it: f"could not make {it.get('snapshot_id')} current: {_error(it)}",
    "snapshot.drop_requested": lambda it: f"requested the drop of {it.get('snapshot_id')}",
    "snapshot.dropped": lambda it: f"dropped {it.get('snapshot_id')}",
    "snapshot.drop_failed": lambda it: f"could not drop {it.get('snapshot_id')}: {_error(it)}",
    "task.started": lambda it: f"started {it.get('kind')}, attempt {it.get('attempt')}, fence {it.get('fence')}",
    "task.attempt_failed": lambda it: (
        f"recorded the failure of {it.get('kind')}, attempt {it.get('attempt')}: {_error(it)}"
    ),
    "task.retried": lambda it: f"requested a retry of {it.get('kind')}",
    "task.cancel_requested": lambda _: "requested the cancellation of the running task",
    "task.cancelled": lambda it: f"cancelled {it.get('kind')}{_because(it.get('reason'))}",
    "session.evicted": lambda it: f"evicted {it.get('session_id')}{_because(it.get('reason'))}",
}


def event_sentence(event: EventDocument) -> str:
    """What the event's actor did; only the type of an event that this console does not know."""
    sentence = _SENTENCES.get(event.type.rpartition(".")[0])
    return event.type if sentence is None else sentence(event.data)


def reason_of(event: EventDocument) -> str:
    """The reason that the event records: a message, a reason or an error."""
    for field in ("message", "reason", "detail"):
        if event.data.get(field):
            return str(event.data[field])
    return _error(event.data) if event.data.get("error") else NOTHING


EVENTS: Sequence[Column[EventDocument]] = (
    Column("TIME", lambda it: moment(it.occurred_at)),
    Column("WORKSPACE", lambda it: it.workspace_id),
    Column("VERSION", lambda it: str(it.version), right=True),
    Column("WHO", lambda it: it.actor),
    Column("WHAT", event_sentence, free=True),
    Column("TASK", lambda it: str(it.data.get("task_id", NOTHING))),
    Column("REQUEST", lambda it: it.request_id),
)
