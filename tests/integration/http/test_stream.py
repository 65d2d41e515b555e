"""The live stream of events: complete, in order, each once; and no client of it can harm another, or the service."""

import asyncio
import http.client
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from tests.conftest import private_database
from tests.integration.eventlog.commanding import ORIGIN, activated, cancel, now, snapshot, write_path
from tests.integration.eventlog.race_writers import LATE
from tests.integration.eventlog.test_race import HOLD_OPEN
from tests.integration.http.api_process import ApiProcess
from tests.integration.http.stream_client import StreamClient, follow

from wvs.application.write_path import WritePath
from wvs.domain.commands import CreateSnapshot
from wvs.domain.ids import WORKSPACE, format_id
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.pool import Pool, create_pool

BIG_LABELS = {f"{n:02}" + "k" * 61: "v" * 255 for n in range(32)}
Start = Callable[..., ApiProcess]


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts `wvs api` on the test's database."""
    started: list[ApiProcess] = []

    def start_one(**settings: Any) -> ApiProcess:
        wanted = {"event_stream_heartbeat_s": 0.4, **settings}
        api = ApiProcess(database_url, tmp_path / "log", **{name: str(value) for name, value in wanted.items()})
        started.append(api)
        api.start()
        return api

    yield start_one
    for api in started:
        api.close()


@pytest.fixture
async def path(pool: Pool) -> AsyncIterator[WritePath]:
    writing = write_path(pool)
    yield writing
    await writing.close()


async def written(path: WritePath, workspace_id: UUID, rounds: int, actor: str = "tester") -> None:
    """Two events for each round."""
    origin = replace(ORIGIN, actor=actor)
    for _ in range(rounds):
        asked = await snapshot(path, workspace_id, origin=origin)
        await cancel(path, workspace_id, asked, origin=origin)


async def log_of(pool: Pool, workspace_id: UUID | None = None) -> list[str]:
    """The positions of all events, in order: what a stream from the beginning has to show."""
    where = "" if workspace_id is None else f"WHERE originator_id = '{workspace_id}'"
    rows = await pool.fetch(f"SELECT notification_id FROM wvs.events {where} ORDER BY notification_id")
    return [f"1:{row[0]}" for row in rows]


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def test_events_come_as_they_are_committed_in_the_form_of_the_list(
    start: Start, path: WritePath, pool: Pool
) -> None:
    api = start()
    async with StreamClient(api.url) as client:
        assert "content-type: text/event-stream" in client.head
        assert "cache-control: no-store" in client.head
        assert "x-request-id: " in client.head
        workspace_id = await activated(path, "one")
        await written(path, workspace_id, 5)
        events = await client.take(13)
    with_http = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
    with_http.request("GET", "/v1/events")
    assert events == json.loads(with_http.getresponse().read())["items"]
    assert [event["position"] for event in events] == await log_of(pool)
    with_http.close()


async def test_a_stream_begins_now_or_behind_a_position(start: Start, path: WritePath, pool: Pool) -> None:
    workspace_id = await activated(path, "one")
    await written(path, workspace_id, 3)
    log = await log_of(pool)
    api = start()
    async with StreamClient(api.url) as now_on, StreamClient(api.url, after="1:0") as whole:
        async with StreamClient(api.url, log[3], after="1:0") as rest:  # what a browser sends when it reconnects
            assert [event["position"] for event in await whole.take(len(log))] == log
            assert [event["position"] for event in await rest.take(len(log) - 4)] == log[4:]
        await now_on.until_sign()
        assert now_on.last_id == log[-1]
        await written(path, workspace_id, 1)
        assert [event["position"] for event in await now_on.take(2)] == (await log_of(pool))[-2:]


async def test_filters_by_workspace_and_type_leave_out_all_others(start: Start, path: WritePath, pool: Pool) -> None:
    api = start()
    one, two = await activated(path, "one"), await activated(path, "two")
    asked: dict[str, Any] = {"type": ["snapshot.requested.v1", "task.cancelled.v1"]}
    async with (
        StreamClient(api.url, after="1:0", workspace="one") as by_name,
        StreamClient(api.url, workspace=format_id(WORKSPACE, two)) as by_id,
        StreamClient(api.url, after="1:0", type="workspace.created.v2") as born,
        StreamClient(api.url, after="1:0", workspace="two", **asked) as both,
    ):
        for workspace_id in (one, two, one):
            await written(path, workspace_id, 4)
        assert [event["position"] for event in await by_name.take(19)] == await log_of(pool, one)
        assert [event["position"] for event in await by_id.take(8)] == (await log_of(pool, two))[3:]
        assert [event["data"]["name"] for event in await born.take(2)] == ["one", "two"]
        assert {event["type"] for event in await both.take(8)} == set(asked["type"])
        last = (await log_of(pool))[-1]
        for client in (by_name, by_id, born, both):  # and then nothing but signs of life, which name the log's end
            while client.last_id != last:
                await client.until_sign()


@pytest.mark.parametrize(
    ("query", "last_id", "status", "code", "says"),
    [
        ({"type": "snapshot.eaten.v1"}, None, 400, "INVALID_REQUEST", "snapshot.eaten.v1"),
        ({"types": "snapshot.created.v1"}, None, 400, "INVALID_REQUEST", "types"),
        ({"workspace": "x" * 81}, None, 400, "INVALID_REQUEST", "workspace"),
        ({"workspace": ["one", "two"]}, None, 400, "INVALID_REQUEST", "more than once"),
        ({"workspace": "nobody"}, None, 404, "WORKSPACE_NOT_FOUND", "nobody"),
        ({"workspace": "ws_01h455vb4pex5vsknk084sn02q"}, None, 404, "WORKSPACE_NOT_FOUND", "ws_"),
        ({"after": "42"}, None, 400, "INVALID_CURSOR", "epoch:position"),
        ({}, "42", 400, "INVALID_CURSOR", "epoch:position"),
        ({}, "1:-1", 400, "INVALID_CURSOR", "epoch:position"),
        ({}, "2:1", 400, "INVALID_CURSOR", "epoch 2"),
        ({"after": "1:0"}, "1:999999", 400, "INVALID_CURSOR", "beyond the end"),
    ],
)
async def test_what_cannot_be_streamed_is_a_problem_before_the_first_byte(
    api_of_module: ApiProcess, query: dict[str, Any], last_id: str | None, status: int, code: str, says: str
) -> None:
    with pytest.raises(AssertionError) as refused:
        await StreamClient(api_of_module.url, last_id, **query).open()
    head, _, body = str(refused.value).partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert "content-type: application/problem+json" in head
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == (code, status)
    assert says in problem["detail"]


@pytest.fixture(scope="module")
def api_of_module(
    admin_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiProcess]:
    with private_database(admin_url, template_database) as url:
        api = ApiProcess(url, tmp_path_factory.mktemp("api") / "log")
        api.start()
        yield api
        api.close()


async def test_head_and_other_methods_are_answered_at_once(api_of_module: ApiProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api_of_module.port, timeout=30)
    connection.request("HEAD", "/v1/events/stream")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type"), answer.read()) == (200, "text/event-stream", b"")
    connection.request("DELETE", "/v1/events/stream")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (405, "METHOD_NOT_ALLOWED")
    connection.close()


async def test_more_streams_than_allowed_are_refused_until_one_leaves(start: Start) -> None:
    api = start(event_streams=2)
    async with StreamClient(api.url), StreamClient(api.url):
        with pytest.raises(AssertionError) as refused:
            await StreamClient(api.url).open()
        head, _, body = str(refused.value).partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 503 ")
        assert "retry-after: 10" in head
        assert json.loads(body)["code"] == "UNAVAILABLE"
    await until(lambda: api.metric("wvs_event_streams") == 0, "the streams that left are still counted")
    async with StreamClient(api.url):
        pass


async def test_clients_that_vanish_are_noticed_and_freed(start: Start) -> None:
    api = start()
    clients = [StreamClient(api.url) for _ in range(30)]
    for client in clients:
        await client.open()
    await until(lambda: api.metric("wvs_event_streams") == 30, "not every stream is counted")
    for client in clients:
        client.close()
    await until(lambda: api.metric("wvs_event_streams") == 0, "vanished clients are still counted")
    assert api.metric('wvs_event_stream_ends_total{reason="left"}') == 30
    api.stop()
    assert not [line for line in api.log.read_text().splitlines() if json.loads(line)["level"] == "error"]


async def write_big(path: WritePath, workspaces: list[UUID], count: int) -> None:
    """Events of ten kilobytes: together more than the sockets' buffers and the service's memory of the newest."""

    async def ask(workspace_id: UUID) -> None:
        for _ in range(count // len(workspaces)):
            command = CreateSnapshot(uuid.uuid4(), uuid.uuid4(), None, BIG_LABELS)
            await path.execute(workspace_id, command, at=now(), origin=ORIGIN)

    await asyncio.gather(*map(ask, workspaces))


async def test_a_slow_client_holds_up_nobody_and_misses_nothing(start: Start, path: WritePath, pool: Pool) -> None:
    api = start(event_stream_stall_s=600)
    workspaces = [await activated(path, f"w{n}") for n in range(10)]
    async with (
        StreamClient(api.url, after="1:0", receive_buffer=4096) as slow,
        StreamClient(api.url, after="1:0") as fast,
    ):
        before = api.resident_bytes()
        reading = asyncio.create_task(fast.take(30 + 900))
        await write_big(path, workspaces, 900)
        log = await log_of(pool)
        assert [event["position"] for event in await reading] == log
        assert api.resident_bytes() - before < 64 * 1024 * 1024
        assert [event["position"] for event in await slow.take(len(log))] == log


async def test_a_client_that_takes_nothing_is_cut_off_and_goes_on_later(
    start: Start, path: WritePath, pool: Pool
) -> None:
    api = start(event_stream_stall_s=1)
    workspaces = [await activated(path, f"w{n}") for n in range(10)]
    async with StreamClient(api.url, after="1:0", receive_buffer=4096) as stalled:
        await write_big(path, workspaces, 200)
        reason = 'wvs_event_stream_ends_total{reason="stalled"}'
        await until(lambda: api.metric(reason) == 1, "the client that takes nothing is still served")
        assert api.metric("wvs_event_streams") == 0
        got = [event["position"] async for event in stalled.events()]
        assert not stalled.ended
    log = await log_of(pool)
    assert got == log[: len(got)]
    assert len(got) < len(log)
    async with StreamClient(api.url, stalled.last_id, after="1:0") as again:
        rest = await again.take(len(log) - len(got))
    assert got + [event["position"] for event in rest] == log
    api.stop()
    assert not [line for line in api.log.read_text().splitlines() if json.loads(line)["level"] == "error"]


async def test_draining_ends_every_stream_even_one_that_takes_nothing(
    start: Start, path: WritePath, record_property: Callable[[str, object], None]
) -> None:
    api = start(event_stream_stall_s=600)
    workspaces = [await activated(path, f"w{n}") for n in range(10)]
    async with StreamClient(api.url, after="1:0", receive_buffer=4096):
        idle = [StreamClient(api.url) for _ in range(20)]
        for client in idle:
            await client.open()
        await write_big(path, workspaces, 200)
        reading = [asyncio.create_task(client.take(200)) for client in idle]
        await asyncio.gather(*reading)
        began = time.monotonic()
        code = await asyncio.to_thread(api.stop)
        took_s = time.monotonic() - began
        for client in idle:
            assert [event async for event in client.events()] == []
            assert client.ended
            client.close()
    assert code == 0
    record_property("told", f"20 idle streams and one that takes nothing: drained in {took_s:.1f} s")
    assert took_s < 20  # far below the 30 s that requests are given


async def test_a_raised_epoch_ends_the_streams_and_their_ids_are_refused(
    start: Start, path: WritePath, pool: Pool
) -> None:
    api = start()
    workspace_id = await activated(path, "one")
    async with StreamClient(api.url, after="1:0") as client:
        await client.take(3)
        await pool.execute("UPDATE wvs.log_identity SET epoch = 2")
        async with asyncio.timeout(60):
            assert [event async for event in client.events()] == []
        assert client.ended
    with pytest.raises(AssertionError, match="INVALID_CURSOR"):
        await StreamClient(api.url, client.last_id).open()
    async with StreamClient(api.url, after="2:0") as client:
        assert [event["workspace_id"] for event in await client.take(3)] == [format_id(WORKSPACE, workspace_id)] * 3


@pytest.mark.parametrize(
    ("count", "rounds"),
    [(40, 20), pytest.param(200, 200, marks=[pytest.mark.campaign, pytest.mark.timeout(900)])],
)
async def test_many_clients_at_once_each_get_everything_once_in_bounded_memory(
    start: Start, path: WritePath, pool: Pool, count: int, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    api = start(event_stream_stall_s=600)
    workspaces = [await activated(path, f"w{n}") for n in range(5)]
    clients = [StreamClient(api.url, after="1:0") for _ in range(count)]
    before = api.resident_bytes()
    await asyncio.gather(*(client.open() for client in clients))
    expected = 15 + len(workspaces) * rounds * 2
    reading = [asyncio.create_task(client.take(expected, timeout_s=600)) for client in clients]
    began = time.monotonic()
    await asyncio.gather(*(written(path, workspace_id, rounds) for workspace_id in workspaces))
    log = await log_of(pool)
    for got in await asyncio.gather(*reading):
        assert [event["position"] for event in got] == log
    took_s = time.monotonic() - began
    grown = api.resident_bytes() - before
    record_property(
        "told", f"{count} streams: {expected} events to each in {took_s:.1f} s, {grown / 2**20:.0f} MiB more resident"
    )
    assert grown < 128 * 2**20
    for client in clients:
        client.close()


@pytest.mark.timeout(300)
async def test_nothing_is_lost_or_doubled_across_restarts_of_the_api_and_lost_connections(
    start: Start, path: WritePath, pool: Pool
) -> None:
    api = start()
    await pool.execute(HOLD_OPEN)  # one writer's commits come late: its positions are lower than what is seen before
    workspaces = [await activated(path, f"w{n}") for n in range(5)]
    got: list[list[str]] = [[] for _ in range(4)]
    following = [asyncio.create_task(follow(api.url, "1:0", mine)) for mine in got]
    over = asyncio.Event()

    async def write(workspace_id: UUID, actor: str) -> None:
        while not over.is_set():
            await written(path, workspace_id, 1, actor)

    writing = [asyncio.create_task(write(workspace_id, "prompt")) for workspace_id in workspaces[1:]]
    writing.append(asyncio.create_task(write(workspaces[0], LATE)))
    for number in (signal.SIGTERM, signal.SIGKILL):
        await longer(got)
        await asyncio.to_thread(api.stop, number)
        await asyncio.to_thread(api.start)
    await longer(got)
    ended = await pool.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'wvs-%'"
    )
    assert ended > 2
    await longer(got)
    over.set()
    await asyncio.gather(*writing)
    log = await log_of(pool)
    async with asyncio.timeout(60):
        while any(len(mine) < len(log) for mine in got):
            await asyncio.sleep(0.05)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    assert got == [log] * 4


async def longer(got: list[list[str]]) -> None:
    """Returns when every client has got more than it has now."""
    before = [len(mine) for mine in got]
    async with asyncio.timeout(60):
        while any(len(mine) < count + 20 for mine, count in zip(got, before, strict=True)):
            await asyncio.sleep(0.02)


@pytest.mark.timeout(240)
async def test_a_stream_outlives_a_restart_of_postgres(server: EmbeddedPostgres, tmp_path: Path) -> None:
    api = ApiProcess(server.url(), tmp_path / "log", event_stream_heartbeat_s="0.4")
    pool = await create_pool(server.url(), application_name="test", size=4)
    try:
        api.start()
        path = write_path(pool)
        workspace_id = await activated(path, "one")
        async with StreamClient(api.url, after="1:0") as client:
            got = await client.take(3)
            await asyncio.to_thread(server.stop)
            await client.until_sign()
            await client.until_sign()
            await asyncio.to_thread(server.start)
            await pool.expire_connections()
            await written(path, workspace_id, 10)
            got += await client.take(20)
        assert [event["position"] for event in got] == await log_of(pool)
        assert api.metric('wvs_ignored_failures_total{where="event_feed"}') > 0
        await path.close()
    finally:
        api.close()
        await asyncio.wait_for(pool.close(), 30)
