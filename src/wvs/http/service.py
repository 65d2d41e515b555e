"""The objects that the routes work with; each process has one of each."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct
from uuid_utils.compat import uuid7

from wvs.application.write_path import WritePath
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.ids import WORKSPACE, InvalidId, format_id, parse_id
from wvs.domain.values import NAME_PATTERN
from wvs.http.live.directives import DirectiveWaiter
from wvs.http.live.draining import finished_in_time
from wvs.http.live.executors import ExecutorWatch
from wvs.http.live.feed import Feed
from wvs.http.live.tasks import TaskWaiter
from wvs.projections.listings import Listings
from wvs.projections.readers import Readers
from wvs.quiesce.sessions import Sessions
from wvs.readmodel.rows import TaskRow, WorkspaceRow

_NAME: Final = re.compile(NAME_PATTERN)


class Service(Struct, frozen=True):
    """The write path, the readers, the waiters, the event feed and the watch of executors of one process.

    `volume` is the volume's directory on the hosts of the agents. No answer is held back for more than `max_wait_s`
    seconds. `on_acknowledged` notifies the executors that a
    session has acknowledged, left or been evicted.
    """

    write_path: WritePath
    readers: Readers
    listings: Listings
    task_waiter: TaskWaiter
    volume: Path
    max_wait_s: int
    draining: asyncio.Event
    sessions: Sessions
    directive_waiter: DirectiveWaiter
    on_acknowledged: Callable[[], None]
    feed: Feed
    executors: ExecutorWatch

    async def workspace(self, id_or_name: str) -> WorkspaceRow:
        """The workspace; refuses `WORKSPACE_NOT_FOUND`."""
        found = None
        if (workspace_id := _workspace_id(id_or_name)) is not None:
            found = await self.readers.workspace(workspace_id)
        elif _NAME.fullmatch(id_or_name):
            found = await self.readers.workspace_named(id_or_name)
        if found is None:
            raise workspace_not_found(id_or_name)
        structlog.contextvars.bind_contextvars(workspace_id=format_id(WORKSPACE, found.id))
        return found

    async def workspace_id(self, id_or_name: str) -> UUID:
        """The workspace's id. If `id_or_name` is an id already, nothing checks that the workspace exists."""
        workspace_id = _workspace_id(id_or_name)
        if workspace_id is None:
            return (await self.workspace(id_or_name)).id
        structlog.contextvars.bind_contextvars(workspace_id=id_or_name)
        return workspace_id

    async def wait_for(self, task: TaskRow, wait_s: float) -> None:
        """Returns when the task is final, when `wait_s` seconds have passed, or when the process drains."""
        if wait_s > 0:
            await finished_in_time(self.task_waiter.until_final(task.id), self.draining, wait_s)


def new_id() -> UUID:
    """A new UUIDv7. It sorts after all earlier ones of this process."""
    return uuid7()


def workspace_not_found(id_or_name: str) -> Refused:
    """The refusal `WORKSPACE_NOT_FOUND`, which names the id or name of the request."""
    return Refused(ErrorCode.WORKSPACE_NOT_FOUND, f"no workspace has the id or name {id_or_name[:80]!r}")


def _workspace_id(text: str) -> UUID | None:
    if not text.startswith(f"{WORKSPACE}_"):
        return None
    try:
        return parse_id(WORKSPACE, text)
    except InvalidId as error:
        raise Refused(ErrorCode.WORKSPACE_NOT_FOUND, str(error)) from None
