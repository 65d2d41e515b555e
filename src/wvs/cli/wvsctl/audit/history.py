"""Shows one event in full, and a workspace at an earlier version."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from wvs.cli.wvsctl.actions.invocation import Invocation
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.documents import TaskDocument
from wvs.cli.wvsctl.api.failures import UsageFailure
from wvs.cli.wvsctl.audit.documents import EventDocument, HistoryDocument
from wvs.cli.wvsctl.audit.event_sentences import event_sentence, reason_of
from wvs.cli.wvsctl.output.layout import NOTHING, moment
from wvs.cli.wvsctl.output.tables import SNAPSHOTS, TASKS, TableWriter
from wvs.cli.wvsctl.output.views import Rows, workspace_rows

_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_time(text: str | None) -> str | None:
    """A time for the API: `text` unchanged, or the current time minus an age such as `90s`, `5m`, `2h` or `7d`."""
    if text is None or (ago := _AGO.fullmatch(text)) is None:
        return text
    try:
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    except OverflowError:
        raise UsageFailure(f"{text} ago is too far in the past") from None


def show_event(run: Invocation, workspace: str, version: int) -> None:
    """Prints one event, and the result of its task."""
    answer = run.client.get(path_of("workspaces", workspace, "events", str(version)))
    if run.screen.as_json:
        run.screen.show_json(answer.body)
        return
    event = run.client.decode(answer, EventDocument)
    run.screen.show_rows([*_event_rows(event), *_result_rows(run, event)])


def show_history(run: Invocation, workspace: str, version: int | None, time: str | None) -> None:
    """Prints a workspace at an earlier version, with its newest snapshots and tasks at that version."""
    query = [("at_version", str(version))] if time is None else [("at_time", time)]
    answer = run.client.get(path_of("workspaces", workspace, "history"), query)
    if run.screen.as_json:
        run.screen.show_json(answer.body)
        return
    then = run.client.decode(answer, HistoryDocument)
    run.screen.show_rows(
        [
            ("as of", f"event {then.version} of {then.latest_version}, {moment(then.occurred_at)}"),
            ("position", then.position),
            *workspace_rows(then.workspace),
            ("live tree", then.live_tree or NOTHING),
        ]
    )
    for title, columns, page in (("snapshots", SNAPSHOTS, then.snapshots), ("tasks", TASKS, then.tasks)):
        run.screen.show("")
        run.screen.show(f"{title} at that time{' (the newest)' if page.next_cursor else ''}:")
        TableWriter(run.screen, columns).write(page.items)  # pyright: ignore[reportArgumentType]


def _event_rows(event: EventDocument) -> Rows:
    who = event.actor if event.actor_verified else f"{event.actor} (claimed by the caller, not verified)"
    return [
        ("event", f"{event.version} of {event.workspace_id}"),
        ("type", event.type),
        ("when", moment(event.occurred_at)),
        ("who", who),
        ("what", event_sentence(event)),
        ("why", reason_of(event)),
        ("request", event.request_id),
        ("idempotency key", event.idempotency_key or NOTHING),
        ("trace", event.traceparent or NOTHING),
        *([] if event.causation is None else [("caused by", event.causation)]),
        ("position", event.position),
        ("hash", event.hash),
        *((f"  {name}", msgspec.json.encode(value).decode()) for name, value in event.data.items()),
    ]


def _result_rows(run: Invocation, event: EventDocument) -> Rows:
    task_id = event.data.get("task_id")
    if not isinstance(task_id, str):
        return []
    task = run.client.decode(run.client.get(path_of("tasks", task_id)), TaskDocument)
    why = f": {task.error.detail} [{task.error.code}]" if task.error else ""
    ended = f" {moment(task.finished_at)}" if task.finished_at else ""
    return [("result", f"{task.kind} {task.state}{ended}{why}")]
