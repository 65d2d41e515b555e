"""The log as it is stored, so that a client can compute and check the hash chains itself."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypeAlias
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import SNAPSHOT, TASK, WORKSPACE, format_id
from wvs.eventlog.reading.follower import complete_until, log_end, log_epoch, safe_position
from wvs.eventlog.reading.stored_log import FIRST, ChainHead, read_chain, read_heads, read_stored
from wvs.http.openapi.examples import CREATE_TASK_ID, OF_WORKSPACE, SNAPSHOT_ID, WORKSPACE_ID, Examples
from wvs.http.openapi.responses import problem_responses
from wvs.http.requests.paths import MAX_VERSION, WorkspacePath
from wvs.http.resources.events import EXAMPLE_EVENT
from wvs.http.service import Service
from wvs.http.wire.cursors import DEFAULT_LIMIT, CursorText, Limit, decode_cursor, encode_cursor
from wvs.http.wire.ids import SnapshotId, TaskId, WorkspaceId, format_optional_id
from wvs.http.wire.positions import PATTERN, Position, format_position, parse_position
from wvs.postgres.pool import Record

_HEADS: Final = "/v1/audit/heads"

_After: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        name="after",
        max_length=40,
        description="A position: the list starts after it.",
        schema_extra={"pattern": PATTERN},
    ),
]
_AfterVersion: TypeAlias = Annotated[
    int,
    QueryParameter(
        name="after_version", ge=0, le=MAX_VERSION, required=False, description="A version: the list starts after it."
    ),
]


class StoredEventView(Struct, frozen=True, kw_only=True):
    """An event as it is stored: `state` contains its bytes in base64; the other fields are the columns of its row.

    The hash is SHA-256 over the previous event's hash of this workspace (32 zero bytes before the first), the
    workspace's 16 bytes, the version (8 bytes), the length of the type's name (4 bytes), the name, and the state.
    """

    position: Position
    workspace_id: WorkspaceId
    version: int
    type: str
    state: str
    hash: str
    occurred_at: datetime
    actor: str
    request_id: str
    task_id: TaskId | None
    snapshot_id: SnapshotId | None


class StoredEventList(Struct, frozen=True):
    """Stored events in the order of the log. `next_cursor` is the `after` of the next page; null at the end."""

    items: list[StoredEventView]
    next_cursor: Position | None


class HeadView(Struct, frozen=True):
    """The end of a workspace's chain. `version` and `hash` are null if the workspace exists without a chain."""

    workspace_id: WorkspaceId
    version: int | None
    hash: str | None


class HeadList(Struct, frozen=True):
    """The heads of all chains. The log is complete up to `position`, which was read before the heads."""

    position: Position
    items: list[HeadView]
    next_cursor: str | None


class ChainView(Struct, frozen=True):
    """A page of a workspace's chain, and its head at the same moment. `next_version` is the next `after_version`."""

    head: HeadView
    items: list[StoredEventView]
    next_version: int | None


@get(_HEADS, operation_id="listChainHeads", responses=problem_responses(ErrorCode.INVALID_CURSOR))
async def list_heads(
    service: NamedDependency[Service], limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> HeadList:
    """Lists the end of each workspace's hash chain. Keep copies elsewhere: they reveal a rewritten log."""
    after = FIRST if cursor is None else decode_cursor(cursor, UUID, _HEADS, {})
    async with service.readers.acquire() as connection:
        epoch = await log_epoch(connection)
        safe = await safe_position(connection)
        heads = await read_heads(connection, after, limit)
    more = encode_cursor(heads[-1].workspace_id, _HEADS, {}) if len(heads) == limit else None
    return HeadList(format_position(epoch, safe), [_head(head) for head in heads], more)


@get("/v1/audit/events", operation_id="listStoredEvents", responses=problem_responses(ErrorCode.INVALID_CURSOR))
async def list_stored_events(
    service: NamedDependency[Service], after: _After = None, limit: Limit = DEFAULT_LIMIT
) -> StoredEventList:
    """Lists all events as they are stored, oldest first, without decoding them."""
    async with service.readers.acquire() as connection:
        end = await log_end(connection)
        start = parse_position(after, end)
        rows = await read_stored(connection, start, await complete_until(connection), limit)
    items = [_stored(end.epoch, row) for row in rows]
    return StoredEventList(items, items[-1].position if len(items) == limit else None)


@get(
    "/v1/workspaces/{workspace:str}/chain",
    operation_id="getWorkspaceChain",
    responses=problem_responses(ErrorCode.WORKSPACE_NOT_FOUND),
)
async def get_chain(
    workspace: WorkspacePath,
    service: NamedDependency[Service],
    after_version: _AfterVersion = 0,
    limit: Limit = DEFAULT_LIMIT,
) -> ChainView:
    """Shows a workspace's stored events and the end of its chain. An id works even if the workspace is unknown."""
    workspace_id = await service.workspace_id(workspace)
    async with service.readers.acquire() as connection:
        epoch = await log_epoch(connection)
        page = await read_chain(connection, workspace_id, after_version, limit)
    items = [_stored(epoch, row) for row in page.rows]
    return ChainView(_head(page.head), items, items[-1].version if len(items) == limit else None)


def _stored(epoch: int, row: Record) -> StoredEventView:
    return StoredEventView(
        position=format_position(epoch, row["notification_id"]),
        workspace_id=format_id(WORKSPACE, row["originator_id"]),
        version=row["originator_version"],
        type=row["topic"],
        state=b64encode(row["state"]).decode("ascii"),
        hash=row["hash"].hex(),
        occurred_at=row["occurred_at"],
        actor=row["actor"],
        request_id=row["request_id"],
        task_id=format_optional_id(TASK, row["task_id"]),
        snapshot_id=format_optional_id(SNAPSHOT, row["snapshot_id"]),
    )


def _head(head: ChainHead) -> HeadView:
    return HeadView(
        format_id(WORKSPACE, head.workspace_id), head.version, None if head.hash is None else head.hash.hex()
    )


HANDLERS: Final = [list_heads, list_stored_events, get_chain]

_EXAMPLE_STORED: Final = StoredEventView(
    position=EXAMPLE_EVENT.position,
    workspace_id=WORKSPACE_ID,
    version=EXAMPLE_EVENT.version,
    type=EXAMPLE_EVENT.type,
    state="eyJldmVudCI6eyJ0eXBlIjoic25hcHNob3QucmVxdWVzdGVkLnYxIn19",
    hash=EXAMPLE_EVENT.hash,
    occurred_at=EXAMPLE_EVENT.occurred_at,
    actor=EXAMPLE_EVENT.actor,
    request_id=EXAMPLE_EVENT.request_id,
    task_id=CREATE_TASK_ID,
    snapshot_id=SNAPSHOT_ID,
)
_EXAMPLE_HEAD: Final = HeadView(WORKSPACE_ID, EXAMPLE_EVENT.version, EXAMPLE_EVENT.hash)

EXAMPLES: Final[Mapping[str, Examples]] = {
    "listChainHeads": Examples({200: {"the only page": HeadList(EXAMPLE_EVENT.position, [_EXAMPLE_HEAD], None)}}),
    "listStoredEvents": Examples(
        {200: {"a full page": StoredEventList([_EXAMPLE_STORED], EXAMPLE_EVENT.position)}},
        parameters={"after": "1:41", "limit": 1},
    ),
    "getWorkspaceChain": Examples(
        {200: {"the end": ChainView(_EXAMPLE_HEAD, [_EXAMPLE_STORED], None)}},
        parameters={**OF_WORKSPACE, "after_version": 2},
    ),
}
