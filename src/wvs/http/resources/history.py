"""History: a workspace as it was at a version or at a time."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct
from msgspec.structs import replace

from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.states import TaskState
from wvs.eventlog.reading.follower import log_epoch
from wvs.http.openapi.examples import LIVE_PATH, OF_WORKSPACE, TREE_NAME, Examples, at
from wvs.http.openapi.responses import problem_responses
from wvs.http.problems.problem import FieldError, refuse_fields
from wvs.http.requests.event_filters import TIME_SCHEMA, parse_time
from wvs.http.requests.paths import MAX_VERSION, WorkspacePath
from wvs.http.resources.current import CurrentView, current_view
from wvs.http.resources.events import EXAMPLE_EVENT
from wvs.http.resources.snapshots import EXAMPLE_NEW_SNAPSHOT, SnapshotList, snapshot_view
from wvs.http.resources.tasks import EXAMPLE_CREATE, EXAMPLE_INIT, TaskList, task_view
from wvs.http.resources.workspaces import EXAMPLE_WORKSPACE, WorkspaceView, workspace_view
from wvs.http.service import Service
from wvs.http.wire.cursors import DEFAULT_LIMIT, Limit, decode_cursor, encode_cursor
from wvs.http.wire.positions import Position, format_position
from wvs.projections.history import History, PastSlice, PlaceInLog
from wvs.readmodel.rows import SnapshotRow, TaskRow, WorkspaceRow

_Version: TypeAlias = Annotated[
    int | None,
    QueryParameter(
        name="at_version", ge=1, le=MAX_VERSION, description="The state after this version of the workspace."
    ),
]
_Time: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="at_time",
        max_length=40,
        description="The state at this time, RFC 3339 with an offset: `2026-01-31T09:00:00Z`.",
        schema_extra=TIME_SCHEMA,
    ),
]


def _cursor_parameter(name: str) -> QueryParameter:
    return QueryParameter(
        name=name,
        max_length=1024,
        description="`next_cursor` of this list in an answer of the same version: continues with older items.",
    )


_SnapshotsCursor: TypeAlias = Annotated[str | None, _cursor_parameter("snapshots_cursor")]
_TasksCursor: TypeAlias = Annotated[str | None, _cursor_parameter("tasks_cursor")]


class HistoryView(Struct, frozen=True, kw_only=True):
    """A workspace as it was after its event `version` and before the next one.

    `snapshots` and `tasks` contain those requested until then, newest first, one page of each, including dropped
    snapshots. `live_tree` is the name of the directory that the agents worked in. `latest_version` is the workspace's
    present version.
    """

    version: int
    latest_version: int
    position: Position
    occurred_at: datetime
    hash: str
    workspace: WorkspaceView
    current: CurrentView
    live_tree: str | None
    snapshots: SnapshotList
    tasks: TaskList


@get(
    "/v1/workspaces/{workspace:str}/history",
    operation_id="getWorkspaceHistory",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND, ErrorCode.VERSION_NOT_FOUND, ErrorCode.INVALID_CURSOR),
)
async def get_history(
    workspace: WorkspacePath,
    service: NamedDependency[Service],
    at_version: _Version = None,
    at_time: _Time = None,
    snapshots_cursor: _SnapshotsCursor = None,
    tasks_cursor: _TasksCursor = None,
    limit: Limit = DEFAULT_LIMIT,
) -> HistoryView:
    """Shows a workspace as it was, replayed from the log. Set either `at_version` or `at_time`.

    To page through its snapshots and tasks, set `at_version` to the `version` of the first answer.
    """
    row = await service.workspace(workspace)
    async with service.readers.acquire() as connection:
        history = History(connection, service.write_path.mapper, row.id)
        place = await _place(history, row, at_version, at_time)
        epoch = await log_epoch(connection)
        past = await history.workspace(place.version)
        pages = _HistoryCursors(row.id, place.version)
        snapshots = await history.snapshots(place.version, pages.start("snapshots", snapshots_cursor), limit)
        tasks = await history.tasks(place.version, pages.start("tasks", tasks_cursor), limit)
    return HistoryView(
        version=place.version,
        latest_version=place.latest,
        position=format_position(epoch, place.position),
        occurred_at=place.occurred_at,
        hash=place.hash.hex(),
        workspace=workspace_view(past, service.volume),
        current=current_view(past, service.volume),
        live_tree=past.live_tree,
        snapshots=SnapshotList([snapshot_view(it) for it in snapshots.rows], pages.next("snapshots", snapshots)),
        tasks=TaskList([task_view(it, None) for it in tasks.rows], pages.next("tasks", tasks)),
    )


async def _place(history: History, row: WorkspaceRow, at_version: int | None, at_time: str | None) -> PlaceInLog:
    if (at_version is None) == (at_time is None):
        raise refuse_fields(FieldError("query", "at_version", "set either at_version or at_time, not both"))
    version = at_version if at_time is None else await _version_at(history, row, parse_time("at_time", at_time))
    place = None if version is None else await history.place(version)
    if place is None:
        raise Refused(ErrorCode.VERSION_NOT_FOUND, f"workspace {row.name} has not reached version {version}")
    return place


async def _version_at(history: History, row: WorkspaceRow, time: datetime) -> int:
    if time > datetime.now(UTC):
        raise Refused(
            ErrorCode.VERSION_NOT_FOUND,
            f"{time.isoformat()} is in the future",
            "GET /v1/workspaces/{id} shows the present state.",
        )
    version = await history.version_at(time)
    if version == 0:
        raise Refused(
            ErrorCode.VERSION_NOT_FOUND,
            f"workspace {row.name} did not exist at {time.isoformat()}",
            f"It was created at {row.created_at.isoformat()}.",
        )
    return version


class _HistoryCursors:
    """Cursors of the two lists, bound to their workspace and version."""

    def __init__(self, workspace_id: UUID, version: int) -> None:
        self._bound = {"workspace": str(workspace_id), "version": version}
        self._newest = version + 1

    def start(self, part: str, cursor: str | None) -> int:
        if cursor is None:
            return self._newest
        return decode_cursor(cursor, int, f"history {part}", self._bound)

    def next(self, part: str, page: PastSlice[SnapshotRow] | PastSlice[TaskRow]) -> str | None:
        return encode_cursor(page.oldest, f"history {part}", self._bound) if page.more else None


HANDLERS: Final = [get_history]

_EXAMPLE_HISTORY: Final = HistoryView(
    version=3,
    latest_version=17,
    position="1:42",
    occurred_at=at(2, 0),
    hash=EXAMPLE_EVENT.hash,
    workspace=EXAMPLE_WORKSPACE,
    current=CurrentView(None, LIVE_PATH, 1),
    live_tree=TREE_NAME,
    snapshots=SnapshotList([EXAMPLE_NEW_SNAPSHOT], None),
    tasks=TaskList(
        [EXAMPLE_CREATE, replace(EXAMPLE_INIT, state=TaskState.SUCCEEDED, attempt=1, finished_at=at(0, 1))], None
    ),
)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "getWorkspaceHistory": Examples(
        {200: {"while its first snapshot was in progress": _EXAMPLE_HISTORY}},
        parameters={**OF_WORKSPACE, "at_version": 3},
    ),
}
