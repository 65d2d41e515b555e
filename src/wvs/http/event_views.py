"""Events as the audit shows them."""

from datetime import datetime
from typing import Annotated, Any, Final, cast
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from wvs.domain.ids import SESSION, SNAPSHOT, TASK, WORKSPACE, Prefix, format_id
from wvs.eventlog.codec import TOPICS, EventMapper, RecordedEvent, StoredEvent
from wvs.eventlog.reading.filtered_log import EventRow
from wvs.eventlog.reading.follower import decode_at
from wvs.http.wire.ids import WorkspaceId
from wvs.http.wire.positions import PATTERN, format_position

Position = Annotated[str, Meta(pattern=PATTERN, examples=["1:42"])]

_IDS: Final[dict[str, Prefix]] = {
    "workspace_id": WORKSPACE,
    "snapshot_id": SNAPSHOT,
    "task_id": TASK,
    "session_id": SESSION,
}
"""The fields with typed ids. A volume's id has no typed form: it is shown as it is in the volume's identity file."""


class EventView(Struct, frozen=True, kw_only=True):
    """One event; `hash` covers it and every earlier one of its workspace."""

    position: Position
    workspace_id: WorkspaceId
    version: int
    type: str
    occurred_at: datetime
    actor: str
    request_id: str
    data: dict[str, Any]
    hash: str


class EventDetail(EventView, frozen=True, kw_only=True):
    """One event with all of its metadata; `actor_verified` is false as long as there is no authentication."""

    actor_verified: bool
    idempotency_key: str | None
    traceparent: str | None
    causation: str | None


class EventList(Struct, frozen=True):
    """Events in the order of the log. `next_cursor` is the `after` of the next page; null if nothing follows yet.

    Without filters it is a position, with filters it goes on only with the same ones.
    """

    items: list[EventView]
    next_cursor: str | None


def view_event(mapper: EventMapper, epoch: int, row: EventRow) -> EventView:
    """The view of a stored event; raises `UnknownEventError` rather than show half of one."""
    return EventView(**_fields(_recorded(mapper, row), epoch, row))


def view_event_in_full(mapper: EventMapper, epoch: int, row: EventRow) -> EventDetail:
    """The same with all of the metadata."""
    recorded = _recorded(mapper, row)
    return EventDetail(
        **_fields(recorded, epoch, row),
        actor_verified=False,
        idempotency_key=recorded.metadata.idempotency_key,
        traceparent=recorded.metadata.traceparent,
        causation=recorded.metadata.causation,
    )


def _recorded(mapper: EventMapper, row: EventRow) -> RecordedEvent:
    position, workspace_id, version, topic, state, _ = row
    return decode_at(mapper, position, StoredEvent(workspace_id, version, topic, state))


def _fields(recorded: RecordedEvent, epoch: int, row: EventRow) -> dict[str, Any]:
    position, workspace_id, version, _, _, digest = row
    return {
        "position": format_position(epoch, position),
        "workspace_id": format_id(WORKSPACE, workspace_id),
        "version": version,
        "type": TOPICS[type(recorded.event)],
        "occurred_at": recorded.metadata.occurred_at,
        "actor": recorded.metadata.actor,
        "request_id": recorded.metadata.request_id,
        "data": typed_ids(msgspec.structs.asdict(recorded.event)),
        "hash": digest.hex(),
    }


def typed_ids(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, at every depth, with ids in their typed form where they have one."""
    return {name: _typed(name, value) for name, value in fields.items()}


def _typed(name: str, value: Any) -> Any:
    if isinstance(value, UUID):
        return format_id(_IDS[name], value) if name in _IDS else str(value)
    if isinstance(value, Struct):
        return typed_ids(msgspec.structs.asdict(value))
    if isinstance(value, tuple):
        return [_typed(name, item) for item in cast("tuple[Any, ...]", value)]
    return value
