"""A served API with rows of every kind, for tests that send requests that its document allows or forbids."""

import asyncio
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

from tests.integration.http.actors import BROKEN, VOLUME, Client, Executor, client_of

from wvs.application.write_path import WritePath
from wvs.eventlog.codec import EventMapper
from wvs.http.server import listen, serve
from wvs.http.wiring import open_api
from wvs.postgres.pool import connect, create_pool
from wvs.settings import Settings
from wvs.telemetry.metrics import Metrics

Ids = dict[str, Iterator[str]]
"""By the name of a path parameter: an endless cycle of ids of existing rows."""

secrets: dict[str, str] = {}
"""The secrets of the existing sessions, by their ids."""


class ServedApi:
    """The real API on its own socket, in its own thread."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._listening = threading.Event()
        self.url = ""
        self.ids: Ids = {}
        self._loop = asyncio.new_event_loop()
        self._failure: BaseException | None = None

    @contextmanager
    def running(self) -> Generator["ServedApi"]:
        """Serves while the block lasts."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            assert self._listening.wait(60)
            if self._failure is not None:
                raise self._failure
            yield self
        finally:
            if self._failure is None:
                self._loop.call_soon_threadsafe(self._draining.set)
            thread.join(60)
            self._loop.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = error
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        settings = Settings(volume=VOLUME, pool_size=4)
        async with open_api(settings, self._database_url) as api:
            self._draining = api.draining
            async with client_of(api) as client:
                self.ids = await seeded(client, self._database_url)
            await serve(api, listen("127.0.0.1", 0), on_listening=self._announce, handle_signals=False)

    def _announce(self, url: str) -> None:
        self.url = url
        self._listening.set()


async def seeded(client: Client, database_url: str) -> Ids:
    """Creates workspaces, snapshots, tasks and sessions in most of their states; returns their ids."""
    pool = await create_pool(database_url, application_name="test executor", size=2)
    connection = await connect(database_url, application_name="test claims")
    try:
        found = await _story(client, Executor(WritePath(pool, EventMapper(), Metrics()), connection))
    finally:
        await connection.close()
        await pool.close()
    fixed = {"code": ["SNAPSHOT_IN_USE", "CANCELLED"], "version": ["1", "2"]}
    return {kind: cycle(ids) for kind, ids in {**found, **fixed}.items()}


async def _story(client: Client, executor: Executor) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {"workspace": ["one", "broken"], "snapshot": [], "task": [], "session": []}

    async def asked(method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await client.ok(method, path, body)
        for kind in ids.keys() & answer.keys():
            ids[kind].append(answer[kind]["id"])
        return answer

    names = ("one", "two", "three")
    for name in names:
        await asked("POST", "/v1/workspaces", {"name": name, "labels": {"a": "1"}})
        await executor.run()
    ready = [await asked("POST", f"/v1/workspaces/{name}/snapshots", {"labels": {"a": "1"}}) for name in names * 2]
    for _ in ready:
        await executor.run()
    for name in names:
        await asked("POST", f"/v1/workspaces/{name}/snapshots", {"message": "fails"})
        await executor.run_failing(BROKEN)
    await asked("POST", "/v1/workspaces", {"name": "broken"})
    await executor.run_failing(BROKEN)
    for name, made in zip(names, ready, strict=False):
        ids["session"] += [await _session(client, f"/v1/workspaces/{name}") for _ in range(3)]
        await asked("PUT", f"/v1/workspaces/{name}/current", {"snapshot_id": made["snapshot"]["id"]})
    await client.ok("POST", "/v1/workspaces/three/disable", {"reason": "over"})
    return ids


async def _session(client: Client, base: str) -> str:
    response = await client.write("POST", f"{base}/sessions", {"agent": "a", "host": "h", "pid": 1})
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    secrets[body["session"]["id"]] = body["secret"]
    return body["session"]["id"]
