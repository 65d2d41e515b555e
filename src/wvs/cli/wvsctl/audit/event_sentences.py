"""Events for people: what happened and why, in a sentence."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from wvs.cli.wvsctl.audit.documents import EventDocument
from wvs.cli.wvsctl.output.layout import NOTHING, moment, number, size
from wvs.cli.wvsctl.output.tables import Column

Data = Mapping[str, Any]


def _error(data: Data) -> str:
    error: Data = data.get("error") or {}
    return f"{error.get('detail', '?')} [{error.get('code', '?')}]"


def _because(text: Any) -> str:
    return f": {text}" if text else ""


def _made(data: Data) -> str:
    report: Data = data.get("report") or {}
    return f"{number(report.get('files'))} files, {size(report.get('bytes'))}, engine {report.get('engine', '?')}"


_WORDS: Final[Mapping[str, Callable[[Data], str]]] = {
    "workspace.created": lambda it: f"asked for the workspace {it.get('name')}",
    "workspace.initialized": lambda it: f"made the live tree, engine {it.get('engine')}",
    "workspace.init_failed": lambda it: f"could not make the live tree: {_error(it)}",
    "workspace.init_retried": lambda _: "asked to make the live tree again",
    "workspace.disabled": lambda it: f"disabled the workspace{_because(it.get('reason'))}",
    "snapshot.requested": lambda it: f"asked for {it.get('snapshot_id')}{_because(it.get('message'))}",
    "snapshot.created": lambda it: f"took {it.get('snapshot_id')} ({_made(it)})",
    "snapshot.failed": lambda it: f"could not take {it.get('snapshot_id')}: {_error(it)}",
    "snapshot.lost": lambda it: f"found the directory of {it.get('snapshot_id')} missing: {it.get('detail')}",
    "current.set_requested": lambda it: f"asked to go to {it.get('snapshot_id')}{' afresh' if it.get('reset') else ''}",
    "current.set_skipped": lambda it: f"left {it.get('snapshot_id')} current: it was already",
    "current.set": lambda it: f"went to {it.get('snapshot_id')}, epoch {it.get('epoch')} ({_made(it)})",
    "current.set_failed": lambda it: f"could not go to {it.get('snapshot_id')}: {_error(it)}",
    "snapshot.drop_requested": lambda it: f"asked to drop {it.get('snapshot_id')}",
    "snapshot.dropped": lambda it: f"dropped {it.get('snapshot_id')}",
    "snapshot.drop_failed": lambda it: f"could not drop {it.get('snapshot_id')}: {_error(it)}",
    "task.started": lambda it: f"started {it.get('kind')}, attempt {it.get('attempt')}, fence {it.get('fence')}",
    "task.attempt_failed": lambda it: f"failed in attempt {it.get('attempt')} of {it.get('kind')}: {_error(it)}",
    "task.retried": lambda it: f"asked to try {it.get('kind')} again",
    "task.cancel_requested": lambda _: "asked to cancel the running task",
    "task.cancelled": lambda it: f"cancelled {it.get('kind')}{_because(it.get('reason'))}",
    "session.evicted": lambda it: f"evicted {it.get('session_id')}{_because(it.get('reason'))}",
}


def in_words(event: EventDocument) -> str:
    """What the event's actor did; the bare type of one that this console does not know."""
    words = _WORDS.get(event.type.rpartition(".")[0])
    return event.type if words is None else words(event.data)


def reason_of(event: EventDocument) -> str:
    """Why it happened, as far as somebody or something said so."""
    for field in ("message", "reason", "detail"):
        if event.data.get(field):
            return str(event.data[field])
    return _error(event.data) if event.data.get("error") else NOTHING


EVENTS: Sequence[Column[EventDocument]] = (
    Column("TIME", lambda it: moment(it.occurred_at)),
    Column("WORKSPACE", lambda it: it.workspace_id),
    Column("VERSION", lambda it: str(it.version), right=True),
    Column("WHO", lambda it: it.actor),
    Column("WHAT", in_words, free=True),
    Column("TASK", lambda it: str(it.data.get("task_id", NOTHING))),
    Column("REQUEST", lambda it: it.request_id),
)
