"""Writes events for the tests of event streams, and reads the log that the streams must show."""

import asyncio
import time
import uuid
from collections.abc import Callable
from uuid import UUID

from msgspec.structs import replace
from tests.integration.eventlog.commanding import ORIGIN, cancel, now, snapshot
from tests.integration.http.api_process import ApiProcess

from wvs.application.write_path import WritePath
from wvs.domain.commands import CreateSnapshot
from wvs.postgres.pool import Pool

BIG_LABELS = {f"{n:02}" + "k" * 61: "v" * 255 for n in range(32)}

StartApi = Callable[..., ApiProcess]
"""Starts `wvs api` with these settings on the test's database."""


async def written(path: WritePath, workspace_id: UUID, rounds: int, actor: str = "tester") -> None:
    """Two events for each round."""
    origin = replace(ORIGIN, actor=actor)
    for _ in range(rounds):
        asked = await snapshot(path, workspace_id, origin=origin)
        await cancel(path, workspace_id, asked, origin=origin)


async def log_of(pool: Pool, workspace_id: UUID | None = None) -> list[str]:
    """The positions of all events in order, as a stream from the beginning must send them."""
    where = "" if workspace_id is None else f"WHERE originator_id = '{workspace_id}'"
    rows = await pool.fetch(f"SELECT notification_id FROM wvs.events {where} ORDER BY notification_id")
    return [f"1:{row[0]}" for row in rows]


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def write_big(path: WritePath, workspaces: list[UUID], count: int) -> None:
    """Writes events of 10 kB: more than the buffers of the sockets and the recent events in memory."""

    async def ask(workspace_id: UUID) -> None:
        for _ in range(count // len(workspaces)):
            command = CreateSnapshot(uuid.uuid4(), uuid.uuid4(), None, BIG_LABELS)
            await path.execute(workspace_id, command, at=now(), origin=ORIGIN)

    await asyncio.gather(*map(ask, workspaces))
