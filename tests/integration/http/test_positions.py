"""Positions over HTTP: an event stands at each that is given out, and one beyond the last event is refused."""

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from tests.integration.eventlog.commanding import activated
from tests.integration.eventlog.test_crashes import FAIL, SEQUENCE, roll_back
from tests.integration.eventlog.test_watermark import foreign
from tests.integration.http.actors import Client
from tests.integration.http.stream_client import StreamClient
from tests.integration.http.stream_writing import StartApi, log_of, until, written

from wvs.application.write_path import WritePath
from wvs.postgres.locks import WATERMARK
from wvs.postgres.pool import Pool


async def read(url: str) -> dict[str, Any]:
    def get() -> dict[str, Any]:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.loads(answer.read())

    return await asyncio.to_thread(get)


@pytest.fixture
async def ended(pool: Pool, path: WritePath) -> str:
    """A log with events of two workspaces and, after them, appends that were rolled back. Its last position."""
    await pool.execute(FAIL)
    await written(path, await activated(path, "one"), 2)
    await activated(path, "two")
    await roll_back(path, 5)
    return (await log_of(pool))[-1]


@pytest.mark.parametrize(
    ("url", "params"),
    [
        ("/v1/events", {}),
        ("/v1/events", {"type": "workspace.created.v2"}),
        ("/v1/workspaces/one/events", {}),
        ("/v1/workspaces/one/events", {"actor": "tester"}),
        ("/v1/audit/events", {}),
    ],
)
async def test_a_list_after_a_position_beyond_the_last_event_is_refused(
    client: Client, pool: Pool, ended: str, url: str, params: dict[str, str]
) -> None:
    assert (await client.read(url, after=ended, **params))["items"] == []
    assigned = await pool.fetchval(SEQUENCE)
    last = int(ended.partition(":")[2])
    assert assigned == last + 5
    for position in (last + 1, assigned, assigned + 1):
        answer = await client.get(url, params={"after": f"1:{position}", **params})
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (400, "INVALID_CURSOR")
        assert f"1:{position} is beyond the end of the log, {ended}" in problem["detail"]


async def test_what_is_no_position_is_refused_with_an_example(client: Client, ended: str) -> None:
    problem = (await client.get("/v1/events/stream", params={"after": ended.partition(":")[2]})).json()
    assert problem["code"] == "INVALID_CURSOR"
    assert "epoch:position" in problem["detail"]
    assert "or 1:0 to read from the start" in problem["hint"]


async def test_streams_and_heads_give_out_the_position_of_the_last_event(start_api: StartApi, ended: str) -> None:
    api = start_api()
    async with StreamClient(api.url) as now_on, StreamClient(api.url, after="1:0", workspace="one") as one:
        await now_on.until_heartbeat()
        assert now_on.last_id == ended
        await one.take(7)
        while one.last_id != ended:
            await one.until_heartbeat()
        await one.until_heartbeat()
        assert one.last_id == ended
        await asyncio.sleep(2.5)  # the feed compares itself with the end of the log about once a second
        assert api.metric("wvs_follower_lag_events") == 0
    last = int(ended.partition(":")[2])
    with pytest.raises(AssertionError, match="beyond the end of the log"):
        await StreamClient(api.url, f"1:{last + 5}").open()
    assert (await read(f"{api.url}/v1/audit/heads"))["position"] == ended


async def test_a_lock_of_another_application_delays_no_stream_and_no_list(
    start_api: StartApi, path: WritePath, pool: Pool, database_url: str
) -> None:
    api = start_api()
    workspace_id = await activated(path, "one")
    async with foreign(database_url, "SELECT pg_advisory_lock_shared(1)"), StreamClient(api.url) as client:
        await written(path, workspace_id, 3)
        got = [event["position"] for event in await client.take(6, timeout_s=10)]
        assert got == (await log_of(pool))[3:]
        listed = await read(f"{api.url}/v1/events")
        assert [event["position"] for event in listed["items"]] == await log_of(pool)
        assert api.metric("wvs_watermark_age_seconds") == 0


async def test_the_api_names_the_session_that_holds_its_readers_back(
    start_api: StartApi, path: WritePath, pool: Pool, database_url: str
) -> None:
    api = start_api()
    await activated(path, "one")
    held = (
        "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0;"
        f"SELECT pg_advisory_xact_lock_shared(({WATERMARK}::bigint << 48) | 2)"
    )
    async with foreign(database_url, held) as holder:
        name = f'wvs_watermark_holder_age_seconds{{application="another application",pid="{holder.get_server_pid()}"}}'
        await until(lambda: api.metric(name) >= 10, "the holder is not named")
        assert api.metric("wvs_watermark_age_seconds") >= 10
        listed = await read(f"{api.url}/v1/events")
        assert [event["position"] for event in listed["items"]] == ["1:1", "1:2"]
    await until(lambda: api.metric("wvs_watermark_age_seconds") == 0, "the age does not fall")
    assert api.metric(name) == 0
    named = [entry for entry in map(json.loads, api.log.read_text().splitlines()) if "watermark" in entry["event"]]
    assert [entry["event"] for entry in named] == ["http.watermark_stuck", "http.watermark_moves"]
    assert named[0]["advice"] == "wvs runbook stuck-watermark"
