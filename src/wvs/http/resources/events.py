"""The audit log: the events of one workspace or of all workspaces, in the order of the log."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, cast
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import PathParameter
from msgspec import Struct
from msgspec.structs import asdict

from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.ids import SESSION, SNAPSHOT, TASK, WORKSPACE, Prefix, format_id
from wvs.eventlog.codec import TOPICS, EventMapper, RecordedEvent, StoredEvent
from wvs.eventlog.reading.filtered_log import EventFilter, EventRow, read_filtered
from wvs.eventlog.reading.follower import decode_at, log_end, log_epoch
from wvs.eventlog.reading.workspace_log import read_stored_event
from wvs.http.openapi.examples import (
    CREATE_TASK_ID,
    IDEMPOTENCY_KEY,
    OF_WORKSPACE,
    SNAPSHOT_ID,
    WORKSPACE_ID,
    Examples,
    at,
)
from wvs.http.openapi.responses import problem_responses
from wvs.http.requests.event_filters import FILTER_DEPENDENCIES, After, next_after, start_after
from wvs.http.requests.paths import MAX_VERSION, WorkspacePath
from wvs.http.service import Service
from wvs.http.wire.cursors import DEFAULT_LIMIT, Limit
from wvs.http.wire.ids import WorkspaceId
from wvs.http.wire.positions import Position, format_position

_IDS: Final[dict[str, Prefix]] = {
    "workspace_id": WORKSPACE,
    "snapshot_id": SNAPSHOT,
    "task_id": TASK,
    "session_id": SESSION,
}
"""The fields with typed ids. The id of a volume has no typed form: it is shown as in the identity file."""


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
    """One event with all its metadata. `actor_verified` is false, because the API has no authentication yet."""

    actor_verified: bool
    idempotency_key: str | None
    traceparent: str | None
    causation: str | None


class EventList(Struct, frozen=True):
    """Events in the order of the log. `next_cursor` is the `after` of the next page; null if no event follows yet.

    Without filters it is a position. With filters it is a cursor that continues only with the same filters.
    """

    items: list[EventView]
    next_cursor: str | None


@get(
    "/v1/events",
    operation_id="listEvents",
    responses=problem_responses(ErrorCode.INVALID_CURSOR),
    dependencies=FILTER_DEPENDENCIES,
)
async def list_events(
    service: NamedDependency[Service],
    wanted: NamedDependency[EventFilter],
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> EventList:
    """Lists events, oldest first. A client that continues after the last event misses none, however late one commits.

    With filters, a page may contain fewer events than `limit`, even none, although more follow: continue until
    `next_cursor` is null.
    """
    return await _listed(service, wanted, after, limit)


@get(
    "/v1/workspaces/{workspace:str}/events",
    operation_id="listWorkspaceEvents",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.INVALID_CURSOR),
    dependencies=FILTER_DEPENDENCIES,
)
async def list_workspace_events(
    workspace: WorkspacePath,
    service: NamedDependency[Service],
    wanted: NamedDependency[EventFilter],
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> EventList:
    """Lists the events of one workspace, oldest first, with the same filters."""
    row = await service.workspace(workspace)
    return await _listed(service, msgspec.structs.replace(wanted, workspace_id=row.id), after, limit)


@get(
    "/v1/workspaces/{workspace:str}/events/{version:int}",
    operation_id="getWorkspaceEvent",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.VERSION_NOT_FOUND),
)
async def get_workspace_event(
    workspace: WorkspacePath,
    version: Annotated[
        int, PathParameter(ge=1, le=MAX_VERSION, description="The version of the event; the first one is 1.")
    ],
    service: NamedDependency[Service],
) -> EventDetail:
    """Shows one event with all recorded metadata of the request that caused it."""
    row = await service.workspace(workspace)
    async with service.readers.acquire() as connection:
        epoch = await log_epoch(connection)
        stored = await read_stored_event(connection, row.id, version)
    if stored is None:
        raise Refused(ErrorCode.VERSION_NOT_FOUND, f"workspace {row.name} has no event {version}")
    return event_detail(service.write_path.mapper, epoch, stored)


async def _listed(service: Service, wanted: EventFilter, after: str | None, limit: int) -> EventList:
    async with service.readers.acquire() as connection:
        end = await log_end(connection)
        page = await read_filtered(connection, wanted, start_after(after, end, wanted), limit)
    items = [event_view(service.write_path.mapper, end.epoch, row) for row in page.rows]
    return EventList(items, next_after(page, end.epoch, wanted))


def event_view(mapper: EventMapper, epoch: int, row: EventRow) -> EventView:
    """The view of a stored event. Raises `UnknownEventError` rather than show an incomplete event."""
    return EventView(**_fields(_recorded(mapper, row), epoch, row))


def event_detail(mapper: EventMapper, epoch: int, row: EventRow) -> EventDetail:
    """The view of a stored event with all its metadata. Raises `UnknownEventError` as `event_view` does."""
    recorded = _recorded(mapper, row)
    return EventDetail(
        **_fields(recorded, epoch, row),
        actor_verified=recorded.metadata.actor_verified is True,
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
    """The fields, at every depth, with UUIDs replaced by typed ids."""
    return {name: _typed(name, value) for name, value in fields.items()}


def _typed(name: str, value: Any) -> Any:
    if isinstance(value, UUID):
        return format_id(_IDS[name], value) if name in _IDS else str(value)
    if isinstance(value, Struct):
        return typed_ids(msgspec.structs.asdict(value))
    if isinstance(value, tuple):
        return [_typed(name, item) for item in cast("tuple[Any, ...]", value)]
    return value


HANDLERS: Final = [list_events, list_workspace_events, get_workspace_event]

EXAMPLE_EVENT: Final = EventView(
    position="1:42",
    workspace_id=WORKSPACE_ID,
    version=3,
    type="snapshot.requested.v1",
    occurred_at=at(2, 0),
    actor="ci/build-17",
    request_id="0f8b6f7b2c1d4e5fa0b1c2d3e4f50617",
    data={
        "snapshot_id": SNAPSHOT_ID,
        "task_id": CREATE_TASK_ID,
        "message": "before the refactoring",
        "labels": {"step": "12"},
    },
    hash="5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
)
_EXAMPLE_EVENT_IN_FULL: Final = EventDetail(
    **asdict(EXAMPLE_EVENT),
    actor_verified=False,
    idempotency_key=IDEMPOTENCY_KEY,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    causation=None,
)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "listEvents": Examples(
        {200: {"the end": EventList([EXAMPLE_EVENT], None)}},
        parameters={"after": "1:41", "actor": "ci/build-17", "since": "2026-11-23T09:00:00Z"},
    ),
    "listWorkspaceEvents": Examples(
        {200: {"a full page": EventList([EXAMPLE_EVENT], "1:42")}},
        parameters={**OF_WORKSPACE, "limit": 1, "type": EXAMPLE_EVENT.type},
    ),
    "getWorkspaceEvent": Examples(
        {200: {"a request for a snapshot": _EXAMPLE_EVENT_IN_FULL}}, parameters={**OF_WORKSPACE, "version": 3}
    ),
}
