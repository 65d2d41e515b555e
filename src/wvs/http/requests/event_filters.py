"""The filters of the event lists as query parameters, and cursors that continue only with the same filters."""

from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias
from uuid import UUID

import msgspec
from litestar.di import Provide
from litestar.params import QueryParameter

from wvs.domain.ids import TASK, InvalidId, parse_id
from wvs.eventlog.codec import TOPICS
from wvs.eventlog.reading.filtered_log import EventFilter, FilteredPage
from wvs.eventlog.reading.follower import LogEnd
from wvs.http.problems.problem import FieldError, refuse_fields
from wvs.http.wire.cursors import decode_cursor, encode_cursor
from wvs.http.wire.ids import ID_PATTERNS
from wvs.http.wire.positions import PATTERN, format_position, is_position, parse_position

After: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="after",
        max_length=1024,
        description="A position, or `next_cursor` of the previous page: the list starts after it. Default: from the "
        "beginning.",
        schema_extra={"pattern": rf"({PATTERN})|^[A-Za-z0-9_-]+$"},
    ),
]
TypeFilter: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="type",
        max_length=80,
        description="Only events of this type.",
        schema_extra={"enum": sorted(TOPICS.values())},
    ),
]
ActorFilter: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="actor", max_length=128, description="Only events of this actor. The service does not verify actors."
    ),
]
TaskIdFilter: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="task",
        max_length=80,
        description="Only events of the task with this id.",
        schema_extra={"pattern": ID_PATTERNS[TASK]},
    ),
]
_TIME: Final = "RFC 3339 with an offset, e.g. `2026-01-31T09:00:00Z`."
TIME_SCHEMA: Final = {"format": "date-time"}
SinceFilter: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="since",
        max_length=40,
        description=f"Only events that occurred at this time or later. {_TIME}",
        schema_extra=TIME_SCHEMA,
    ),
]
UntilFilter: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="until",
        max_length=40,
        description=f"Only events that occurred before this time. {_TIME}",
        schema_extra=TIME_SCHEMA,
    ),
]


_times: Final = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)])


def provide_filter(
    event_type: TypeFilter = None,
    actor: ActorFilter = None,
    task: TaskIdFilter = None,
    since: SinceFilter = None,
    until: UntilFilter = None,
) -> EventFilter:
    """The filter of the request. Refuses `INVALID_REQUEST`, which names the invalid parameter."""
    if event_type is not None and event_type not in TOPICS.values():
        known = ", ".join(sorted(TOPICS.values()))
        raise refuse_fields(
            FieldError("query", "type", f"{event_type[:40]!r} is not a type of event; the types are {known}")
        )
    return EventFilter(
        topic=event_type,
        actor=actor,
        task_id=None if task is None else _task_id(task),
        since=None if since is None else parse_time("since", since),
        until=None if until is None else parse_time("until", until),
    )


FILTER_DEPENDENCIES: Final = {"wanted": Provide(provide_filter, sync_to_thread=False)}


def parse_time(name: str, text: str) -> datetime:
    """The time in a query parameter. Refuses `INVALID_REQUEST` if it is malformed or has no offset."""
    try:
        return _times.decode(msgspec.json.encode(text)).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        problem = f"must be a time such as 2026-01-31T09:00:00Z, with an offset (a + written as %2B); got {text!r}"
        raise refuse_fields(FieldError("query", name, problem)) from None


def start_after(after: str | None, end: LogEnd, wanted: EventFilter) -> int:
    """The position after which the page starts. Refuses `INVALID_CURSOR` for other filters or another log."""
    if after is None or wanted.is_empty or is_position(after):
        return parse_position(after, end)
    return parse_position(decode_cursor(after, str, "events", _bound(wanted)), end)


def next_after(page: FilteredPage, epoch: int, wanted: EventFilter) -> str | None:
    """The `after` of the next page: a plain position if there are no filters."""
    if page.walked_to is None:
        return None
    position = format_position(epoch, page.walked_to)
    return position if wanted.is_empty else encode_cursor(position, "events", _bound(wanted))


def _bound(wanted: EventFilter) -> dict[str, object]:
    return msgspec.structs.asdict(wanted)


def _task_id(text: str) -> UUID:
    try:
        return parse_id(TASK, text)
    except InvalidId as error:
        raise refuse_fields(FieldError("query", "task", str(error))) from None
