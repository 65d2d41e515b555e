"""The audit: events of one workspace, or of all, in the order of the log."""

from typing import Annotated, Final, TypeAlias

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from wvs.domain.errors import ErrorCode
from wvs.eventlog.follower import Page, log_epoch, read_page
from wvs.eventlog.workspace_log import read_workspace_page
from wvs.http.cursors import DEFAULT_LIMIT, Limit
from wvs.http.event_views import EventList, view_event
from wvs.http.openapi import problem_responses
from wvs.http.positions import PATTERN, parse_position
from wvs.http.routes.paths import WorkspacePath
from wvs.http.service import Service

_After: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="after",
        max_length=40,
        description="A position; the events behind it are shown. Left out: from the beginning.",
        schema_extra={"pattern": PATTERN},
    ),
]


@get("/v1/events", operation_id="listEvents", responses=problem_responses(ErrorCode.INVALID_CURSOR))
async def list_events(
    service: NamedDependency[Service], after: _After = None, limit: Limit = DEFAULT_LIMIT
) -> EventList:
    """Lists events, oldest first. Whoever goes on behind the last one shown misses none, however late it commits."""
    async with service.readers.acquire() as connection:
        epoch = await log_epoch(connection)
        page = await read_page(connection, parse_position(after, epoch), limit)
    return _shown(service, epoch, page, limit)


@get(
    "/v1/workspaces/{workspace:str}/events",
    operation_id="listWorkspaceEvents",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.INVALID_CURSOR),
)
async def list_workspace_events(
    workspace: WorkspacePath, service: NamedDependency[Service], after: _After = None, limit: Limit = DEFAULT_LIMIT
) -> EventList:
    """Lists the events of one workspace, oldest first."""
    row = await service.workspace(workspace)
    async with service.readers.acquire() as connection:
        epoch = await log_epoch(connection)
        page = await read_workspace_page(connection, row.id, parse_position(after, epoch), limit)
    return _shown(service, epoch, page, limit)


def _shown(service: Service, epoch: int, page: Page, limit: int) -> EventList:
    items = [view_event(service.write_path.mapper, epoch, row) for row in page.rows]
    return EventList(items, items[-1].position if len(items) == limit else None)


HANDLERS: Final = [list_events, list_workspace_events]
