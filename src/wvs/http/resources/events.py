"""The audit: events of one workspace, or of all, in the order of the log."""

from typing import Annotated, Final

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import PathParameter

from wvs.domain.errors import ErrorCode, Refused
from wvs.eventlog.reading.filtered_log import EventFilter, read_filtered
from wvs.eventlog.reading.follower import log_epoch
from wvs.eventlog.reading.workspace_log import read_stored_event
from wvs.http.event_views import EventDetail, EventList, view_event, view_event_in_full
from wvs.http.openapi.responses import problem_responses
from wvs.http.requests.event_filters import FILTER_DEPENDENCIES, After, next_after, start_after
from wvs.http.requests.paths import GREATEST_VERSION, WorkspacePath
from wvs.http.service import Service
from wvs.http.wire.cursors import DEFAULT_LIMIT, Limit


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
    """Lists events, oldest first. Whoever goes on behind the last one shown misses none, however late it commits.

    With filters a page may hold fewer than asked for, even none, while others follow: go on until `next_cursor` is
    null.
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
        int, PathParameter(ge=1, le=GREATEST_VERSION, description="Which of its events, counted from 1.")
    ],
    service: NamedDependency[Service],
) -> EventDetail:
    """Shows one event with everything that is recorded about the request it came from."""
    row = await service.workspace(workspace)
    async with service.readers.acquire() as connection:
        epoch = await log_epoch(connection)
        stored = await read_stored_event(connection, row.id, version)
    if stored is None:
        raise Refused(ErrorCode.VERSION_NOT_FOUND, f"workspace {row.name} has no event {version}")
    return view_event_in_full(service.write_path.mapper, epoch, stored)


async def _listed(service: Service, wanted: EventFilter, after: str | None, limit: int) -> EventList:
    async with service.readers.acquire() as connection:
        epoch = await log_epoch(connection)
        page = await read_filtered(connection, wanted, start_after(after, epoch, wanted), limit)
    items = [view_event(service.write_path.mapper, epoch, row) for row in page.rows]
    return EventList(items, next_after(page, epoch, wanted))


HANDLERS: Final = [list_events, list_workspace_events, get_workspace_event]
