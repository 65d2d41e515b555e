"""The event stream: complete, in order, each event once; no client can harm another one or the service."""

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.conftest import private_database
from tests.integration.eventlog.commanding import activated
from tests.integration.http.api_process import ApiProcess
from tests.integration.http.stream_client import StreamClient
from tests.integration.http.stream_writing import StartApi, log_of, until, write_big, written

from wvs.application.write_path import WritePath
from wvs.domain.ids import WORKSPACE, format_id
from wvs.postgres.pool import Pool


async def test_events_arrive_as_they_are_committed_in_the_form_of_the_list(
    start_api: StartApi, path: WritePath, pool: Pool
) -> None:
    api = start_api()
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


async def test_a_stream_starts_now_or_after_a_position(start_api: StartApi, path: WritePath, pool: Pool) -> None:
    workspace_id = await activated(path, "one")
    await written(path, workspace_id, 3)
    log = await log_of(pool)
    api = start_api()
    async with StreamClient(api.url) as now_on, StreamClient(api.url, after="1:0") as whole:
        async with StreamClient(api.url, log[3], after="1:0") as rest:  # what a browser sends when it reconnects
            assert [event["position"] for event in await whole.take(len(log))] == log
            assert [event["position"] for event in await rest.take(len(log) - 4)] == log[4:]
        await now_on.until_heartbeat()
        assert now_on.last_id == log[-1]
        await written(path, workspace_id, 1)
        assert [event["position"] for event in await now_on.take(2)] == (await log_of(pool))[-2:]


async def test_filters_by_workspace_and_type_exclude_all_other_events(
    start_api: StartApi, path: WritePath, pool: Pool
) -> None:
    api = start_api()
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
        for client in (by_name, by_id, born, both):  # then only heartbeats, which carry the end of the log
            while client.last_id != last:
                await client.until_heartbeat()


@pytest.mark.parametrize(
    ("query", "last_id", "status", "code", "text"),
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
async def test_an_invalid_request_for_a_stream_is_a_problem_before_the_first_byte(
    api_of_module: ApiProcess, query: dict[str, Any], last_id: str | None, status: int, code: str, text: str
) -> None:
    with pytest.raises(AssertionError) as refused:
        await StreamClient(api_of_module.url, last_id, **query).open()
    head, _, body = str(refused.value).partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert "content-type: application/problem+json" in head
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == (code, status)
    assert text in problem["detail"]


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


async def test_more_streams_than_allowed_are_refused_until_one_leaves(start_api: StartApi) -> None:
    api = start_api(event_streams=2)
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


async def test_vanished_clients_are_detected_and_their_streams_freed(start_api: StartApi) -> None:
    api = start_api()
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


async def test_a_slow_client_delays_no_other_client_and_misses_nothing(
    start_api: StartApi, path: WritePath, pool: Pool
) -> None:
    api = start_api(event_stream_stall_s=600)
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


async def test_a_client_that_reads_nothing_is_disconnected_and_can_continue_later(
    start_api: StartApi, path: WritePath, pool: Pool
) -> None:
    api = start_api(event_stream_stall_s=1)
    workspaces = [await activated(path, f"w{n}") for n in range(10)]
    async with StreamClient(api.url, after="1:0", receive_buffer=4096) as stalled:
        await write_big(path, workspaces, 200)
        reason = 'wvs_event_stream_ends_total{reason="stalled"}'
        await until(lambda: api.metric(reason) == 1, "the client that reads nothing is still served")
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


async def test_draining_ends_every_stream_even_one_whose_client_reads_nothing(
    start_api: StartApi, path: WritePath, record_property: Callable[[str, object], None]
) -> None:
    api = start_api(event_stream_stall_s=600)
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
    record_property("summary", f"20 idle streams and one that reads nothing: drained in {took_s:.1f} s")
    assert took_s < 20  # far below the 30 s that requests are given


async def test_a_raised_epoch_ends_all_streams_and_their_ids_are_refused(
    start_api: StartApi, path: WritePath, pool: Pool
) -> None:
    api = start_api()
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
async def test_many_concurrent_clients_each_get_every_event_once_in_bounded_memory(
    start_api: StartApi,
    path: WritePath,
    pool: Pool,
    count: int,
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    api = start_api(event_stream_stall_s=600)
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
        "summary",
        f"{count} streams: {expected} events to each in {took_s:.1f} s, {grown / 2**20:.0f} MiB more resident",
    )
    assert grown < 128 * 2**20
    for client in clients:
        client.close()
