"""The live stream of events: server-sent events with positions as ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema
from litestar.params import HeaderParameter, QueryParameter

from wvs.domain.errors import ErrorCode
from wvs.eventlog.codec import TOPICS, EventMapper
from wvs.eventlog.reading.filtered_log import EventRow
from wvs.http.live.recent_events import FeedEntry
from wvs.http.live.streams import MEDIA_TYPE, EventStream, StreamFilter, StreamResponse
from wvs.http.openapi.examples import OF_WORKSPACE, Examples
from wvs.http.openapi.responses import problem_responses
from wvs.http.problems.problem import FieldError, refuse_fields
from wvs.http.resources.events import EXAMPLE_EVENT, event_view
from wvs.http.service import Service
from wvs.http.wire.positions import PATTERN

_TYPES: Final = frozenset(TOPICS.values())


@dataclass
class _StreamOperation(Operation):
    def __post_init__(self) -> None:
        answer = (self.responses or {}).get("200")
        if isinstance(answer, OpenAPIResponse):
            answer.description = "Server-sent events. The stream ends when the client disconnects or the service stops."
            answer.content = {MEDIA_TYPE: OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))}


@get(
    "/v1/events/stream",
    operation_id="streamEvents",
    operation_class=_StreamOperation,
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.INVALID_CURSOR),
)
async def stream_events(
    service: NamedDependency[Service],
    workspace: Annotated[
        str | None, QueryParameter(max_length=80, description="Id or name: only events of this workspace.")
    ] = None,
    event_type: Annotated[
        list[str] | None,
        QueryParameter(
            name="type",
            max_items=len(_TYPES),
            description="Only events of this type; may be repeated for several types.",
            schema_extra={"items": {"type": "string", "enum": sorted(_TYPES)}},
        ),
    ] = None,
    after: Annotated[
        str | None,
        QueryParameter(
            max_length=40,
            description="A position: the stream starts after it. `EPOCH:0`: the first event. Default: now.",
            schema_extra={"pattern": PATTERN},
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID",
            required=False,
            description="The last id that the client has received: the stream continues after it. Overrides `after`.",
            schema_extra={"pattern": PATTERN},
        ),
    ] = None,
) -> Response[bytes]:
    """Sends events as they are committed, oldest first, each once. A client reconnects with the last id it received.

    Every event consists of `id: POSITION` and `data: EVENT`, with the event in the form of `GET /v1/events`. Comments
    and ids without data are heartbeats.
    """
    unknown = sorted(set(event_type or ()) - _TYPES)
    if unknown:
        raise refuse_fields(FieldError("query", "type", f"{unknown[0][:80]!r} is not a type of event"))
    workspace_id = None if workspace is None else (await service.workspace(workspace)).id
    start = await service.feed.start(last_event_id or after)
    return StreamResponse(EventStream(service.feed, start, StreamFilter(workspace_id, frozenset(event_type or ()))))


def stream_entry(mapper: EventMapper, epoch: int, row: EventRow) -> FeedEntry:
    """A stored event as streams send it. Its type is the present one, even if it was stored under an older type."""
    event = event_view(mapper, epoch, row)
    text = b"id: %b\ndata: %b\n\n" % (event.position.encode("ascii"), msgspec.json.encode(event))
    return FeedEntry(row[0], row[1], event.type, text)


HANDLERS: Final = [stream_events]


EXAMPLES: Final[Mapping[str, Examples]] = {
    "streamEvents": Examples(
        {
            200: {
                "a heartbeat and an event": ": alive\nid: 1:41\n\nid: 1:42\ndata: "
                + msgspec.json.encode(EXAMPLE_EVENT).decode()
                + "\n\n"
            }
        },
        parameters={**OF_WORKSPACE, "type": ["snapshot.requested.v1"], "Last-Event-ID": "1:41"},
    ),
}
