"""The event lists over HTTP: every filter, pages without gaps, cursors bound to their filters."""

import datetime as dt
from itertools import product
from typing import Any

import pytest
from tests.integration.eventlog.reading import read_events
from tests.integration.http.actors import Client, Executor

from wvs.eventlog.codec import EventMapper, UnknownEventError
from wvs.eventlog.reading import filtered_log
from wvs.postgres.pool import Pool


async def pages(client: Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """A whole list, read page by page. A page may be empty although more follow."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    for _ in range(1000):
        page = await client.read(path, **params, **after)
        assert len(page["items"]) <= params.get("limit", 50)
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        after = {"after": page["next_cursor"]}
    raise AssertionError("the list has no end")


@pytest.fixture
async def happened(client: Client, executor: Executor) -> list[dict[str, Any]]:
    """Events of two workspaces by three actors, in the order of the log."""
    for name, actor in (("one", "anna"), ("two", "bert")):
        await client.ok("POST", "/v1/workspaces", {"name": name}, x_actor=actor)
        await executor.run()
    for name, actor in (("one", "bert"), ("two", "anna"), ("one", "anna"), ("one", "bert")):
        await client.ok("POST", f"/v1/workspaces/{name}/snapshots", x_actor=actor)
        await executor.run()
    return (await client.read("/v1/events", limit=1000))["items"]


def passes(event: dict[str, Any], wanted: dict[str, Any]) -> bool:
    time = dt.datetime.fromisoformat(event["occurred_at"])
    return (
        ("type" not in wanted or event["type"] == wanted["type"])
        and ("actor" not in wanted or event["actor"] == wanted["actor"])
        and ("task" not in wanted or event["data"].get("task_id") == wanted["task"])
        and ("since" not in wanted or time >= dt.datetime.fromisoformat(wanted["since"]))
        and ("until" not in wanted or time < dt.datetime.fromisoformat(wanted["until"]))
    )


async def test_every_combination_of_filters_shows_exactly_the_events_that_pass(
    client: Client, happened: list[dict[str, Any]]
) -> None:
    middle = happened[len(happened) // 2]
    values: dict[str, list[str | None]] = {
        "type": [None, "task.started.v1", "workspace.disabled.v1"],
        "actor": [None, "anna", "executor-1", "nobody"],
        "task": [None, middle["data"]["task_id"]],
        "since": [None, middle["occurred_at"]],
        "until": [None, middle["occurred_at"]],
    }
    ids = {event["data"].get("name"): event["workspace_id"] for event in happened}
    for chosen in product(*values.values()):
        wanted = {name: value for name, value in zip(values, chosen, strict=True) if value is not None}
        expected = [event for event in happened if passes(event, wanted)]
        assert await pages(client, "/v1/events", limit=2, **wanted) == expected, wanted
        found = await pages(client, "/v1/workspaces/one/events", limit=3, **wanted)
        assert found == [event for event in expected if event["workspace_id"] == ids["one"]], wanted


async def test_a_page_reads_a_bounded_number_of_events_and_the_next_continues_after_them(
    client: Client, happened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtered_log, "WALKED_EVENTS", 6)
    monkeypatch.setattr(filtered_log, "_BATCH", 3)
    wanted = {"actor": "bert", "since": "2020-01-01T00:00:00Z", "task": happened[-1]["data"]["task_id"]}
    assert await pages(client, "/v1/events", limit=2, **wanted) == [e for e in happened if passes(e, wanted)]
    first = await client.read("/v1/workspaces/one/events", limit=2, actor="nobody")
    assert first["items"] == []
    assert first["next_cursor"] is not None
    assert await pages(client, "/v1/workspaces/one/events", limit=2, actor="nobody") == []


async def test_a_cursor_continues_only_with_its_own_filters(client: Client, happened: list[dict[str, Any]]) -> None:
    cursor = (await client.read("/v1/events", actor="anna", limit=1))["next_cursor"]
    for path, params in (
        ("/v1/events", {"actor": "bert"}),
        ("/v1/events", {}),
        ("/v1/events", {"actor": "anna", "type": "task.started.v1"}),
        ("/v1/workspaces/one/events", {"actor": "anna"}),
        ("/v1/events", {"actor": "anna", "after": cursor + "A"}),
    ):
        response = await client.get(path, params={"after": cursor, **params})
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR"), (path, params)


async def test_a_list_with_any_filter_may_start_after_a_position(
    client: Client, happened: list[dict[str, Any]]
) -> None:
    middle = len(happened) // 2
    found = await pages(client, "/v1/events", actor="executor-1", after=happened[middle]["position"], limit=50)
    assert found == [event for event in happened[middle + 1 :] if event["actor"] == "executor-1"]


BAD_FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"type": "snapshot.renamed.v1"}, "type"),
    ({"type": "x" * 81}, "type"),
    ({"actor": "x" * 129}, "actor"),
    ({"task": "ws_01h455vb4pex5vsknk084sn02q"}, "task"),
    ({"task": "x"}, "task"),
    ({"since": "yesterday"}, "since"),
    ({"until": "2026-01-01T00:00:00"}, "until"),
    ({"until": "9999-12-31T23:59:59-14:00"}, "until"),
    ({"from": "2026-01-01T00:00:00Z"}, "from"),
]


async def test_an_invalid_filter_is_refused_by_name(client: Client, happened: list[dict[str, Any]]) -> None:
    for path, (params, field) in product(("/v1/events", "/v1/workspaces/one/events"), BAD_FILTERS):
        response = await client.get(path, params=params)
        problem = response.json()
        assert (response.status_code, problem["code"]) == (400, "INVALID_REQUEST"), (params, problem)
        assert [error["field"] for error in problem["errors"]] == [field], (params, problem)


async def test_times_far_away_are_valid(client: Client, happened: list[dict[str, Any]]) -> None:
    wanted = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z"}
    assert await pages(client, "/v1/events", **wanted) == happened


async def test_one_event_is_shown_with_the_metadata_of_its_request(
    client: Client, happened: list[dict[str, Any]], pool: Pool
) -> None:
    headers = {"x_actor": "anna", "x_request_id": "req-7", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    await client.write("POST", "/v1/workspaces/one/snapshots", {"message": "why"}, key="key-7", **headers)
    last = (await client.read("/v1/workspaces/one/events", limit=1000))["items"][-1]
    event = await client.read(f"/v1/workspaces/one/events/{last['version']}")
    assert {name: event[name] for name in last} == last
    assert (event["actor"], event["actor_verified"]) == ("anna", False)
    assert (event["request_id"], event["idempotency_key"]) == ("req-7", "key-7")
    assert event["traceparent"].split("-")[1] == "a" * 32
    response = await client.get(f"/v1/workspaces/one/events/{last['version'] + 1}")
    assert (response.status_code, response.json()["code"]) == (404, "VERSION_NOT_FOUND")
    response = await client.get("/v1/workspaces/one/events/0")
    assert [error["field"] for error in response.json()["errors"]] == ["version"]


async def test_an_event_that_cannot_be_decoded_stops_the_list_and_the_log_names_its_position(
    client: Client, happened: list[dict[str, Any]], pool: Pool
) -> None:
    position = int(happened[3]["position"].partition(":")[2])
    await pool.execute("UPDATE wvs.events SET topic = 'workspace.painted.v1' WHERE notification_id = $1", position)
    response = await client.get("/v1/events")
    assert (response.status_code, response.json()["code"]) == (500, "INTERNAL")
    async with pool.acquire() as connection:
        assert len(await read_events(connection, EventMapper(), 0, 3)) == 3
        with pytest.raises(UnknownEventError, match=rf"position {position}, workspace .*painted"):
            await read_events(connection, EventMapper(), 0, 4)
