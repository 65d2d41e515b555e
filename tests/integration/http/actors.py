"""The actors of these tests: a client, a process of the API, and an executor that reports what a test wants."""

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from wvs.application.write_path import Committed, Origin, WritePath
from wvs.domain.commands import (
    Command,
    FailAttempt,
    FinishDrop,
    FinishInit,
    FinishSetCurrent,
    FinishSnapshot,
    StartTask,
)
from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, parse_id
from wvs.domain.states import TaskKind
from wvs.domain.values import Certificate, CloneReport, Member, TaskError
from wvs.eventlog.recorder import Hold
from wvs.http.app import Api
from wvs.http.wiring import open_api
from wvs.postgres.pool import OwnConnection
from wvs.postgres.queries import sql
from wvs.queue.lanes import Claim, LaneCursor, TaskProgress, claim, release, renew
from wvs.settings import Settings

VOLUME = Path("/srv/volume")
NO_SPACE = TaskError(ErrorCode.VOLUME_FULL, "no space left", "Free some.", retryable=True)
BROKEN = TaskError(ErrorCode.CLONE_FAILED, "cannot be cloned", "Look at the log.", retryable=False)
_FOLLOWS = sql("link_moved")
GONE = TaskError(ErrorCode.LEASE_LOST, "the holder is gone", retryable=True)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Executor:
    """Claims tasks like an executor and reports the outcome that a test wants."""

    def __init__(self, path: WritePath, connection: OwnConnection) -> None:
        self._path = path
        self._connection = connection
        self._cursor = LaneCursor()

    async def claim(self) -> Claim:
        held = await claim(self._connection, "executor-1", 30, self._cursor)
        for _ in range(200):
            if held is not None:
                return held
            await asyncio.sleep(0.01)
            held = await claim(self._connection, "executor-1", 30, self._cursor)
        raise AssertionError("no task can be claimed")

    async def start(self) -> Claim:
        held = await self.claim()
        tree = None if held.kind is TaskKind.SNAPSHOT_DROP else self.tree(held)
        await self.report(held, StartTask(held.task_id, held.fence, "executor-1", tree, now(), GONE))
        return held

    async def progress(self, held: Claim, progress: TaskProgress) -> None:
        await renew(self._connection, held, 30, progress)

    async def finish(self, held: Claim) -> None:
        committed = await self.report(held, self._success(held))
        if committed.workspace is not None:
            await self._connection.fetch(_FOLLOWS, held.workspace_id, committed.workspace.epoch)
        await release(self._connection, held)

    async def fail(self, held: Claim, error: TaskError = BROKEN) -> None:
        await self.report(held, FailAttempt(held.task_id, held.fence, error, now(), jitter=0.0))
        await release(self._connection, held)

    async def run(self) -> Claim:
        """Takes the next task and completes it."""
        held = await self.start()
        await self.finish(held)
        return held

    async def run_failing(self, error: TaskError = BROKEN) -> Claim:
        held = await self.start()
        await self.fail(held, error)
        return held

    async def report(self, held: Claim, command: Command) -> Committed:
        origin = Origin("executor-1", held.request_id or "none")
        hold = Hold(held.task_id, held.fence)
        return await self._path.execute(held.workspace_id, command, at=now(), origin=origin, hold=hold)

    async def command(self, workspace_id: str, command: Command) -> Committed:
        """Executes a command that needs no claim."""
        origin = Origin("executor-1", "none")
        return await self._path.execute(parse_id(WORKSPACE, workspace_id), command, at=now(), origin=origin)

    def tree(self, held: Claim) -> str:
        return f"{held.task_id.hex}.{held.fence}"

    def _success(self, held: Claim) -> Command:
        match held.kind:
            case TaskKind.WORKSPACE_INIT:
                return FinishInit(held.task_id, held.fence, self.tree(held), "copy")
            case TaskKind.SNAPSHOT_CREATE:
                return FinishSnapshot(held.task_id, held.fence, self.tree(held), REPORT, proof(held))
            case TaskKind.CURRENT_SET:
                return FinishSetCurrent(held.task_id, held.fence, self.tree(held), REPORT, proof(held))
            case TaskKind.SNAPSHOT_DROP:
                return FinishDrop(held.task_id, held.fence)


REPORT = CloneReport("copy", 3, 4096, 0, 0.01, 0.02, 0.04)


def proof(held: Claim) -> Certificate:
    member = Member(held.task_id, "boot-1", "ok")
    return Certificate(1, False, (member,), "stamp", "stamp", "copy", now(), now())


class Client(httpx.AsyncClient):
    """A client of the API that sends a new idempotency key with every write, unless a test sets one."""

    _keys = itertools.count(1)

    async def write(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str
    ) -> httpx.Response:
        sent = {"content-type": "application/json", "idempotency-key": key or f"test-{next(self._keys)}"}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        content = None if body is None else httpx.Request("POST", "http://x", json=body).content
        return await self.request(method, path, content=content, headers=sent)

    async def ok(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """Sends a write that must be accepted; returns the answer."""
        response = await self.write(method, path, body, **headers)
        assert response.status_code in {200, 202}, response.text
        return response.json()

    async def read(self, path: str, **params: Any) -> dict[str, Any]:
        """Sends a read that must succeed; returns the answer."""
        response = await self.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()


def client_of(api: Api) -> Client:
    transport = httpx.ASGITransport(api.asgi)  # pyright: ignore[reportArgumentType]
    return Client(transport=transport, base_url="http://localhost:8787")


@asynccontextmanager
async def running_api(database_url: str, **settings: Any) -> AsyncGenerator[Api]:
    """One process of the API, as a server would run it.

    It runs in a task of its own, because pytest runs the two halves of a fixture in different tasks.
    """
    started: asyncio.Future[Api] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def live() -> None:
        wanted = Settings(**{"volume": VOLUME, "pool_size": 4, **settings})
        async with open_api(wanted, database_url) as api, api.litestar.lifespan():
            started.set_result(api)
            await over.wait()

    task = asyncio.create_task(live())
    await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield started.result()
    finally:
        over.set()
        await task
