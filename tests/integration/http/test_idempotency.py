"""Every row of the idempotency table (design §5), over HTTP."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.integration.http.actors import Client, Executor, client_of, running_api

from wvs.http.app import Api
from wvs.postgres.pool import OwnConnection, Pool, connect

KEYED_WRITES = [
    ("POST", "/v1/workspaces", {"name": "two"}),
    ("POST", "/v1/workspaces/one/retry-init", None),
    ("POST", "/v1/workspaces/one/snapshots", None),
    ("DELETE", "/v1/workspaces/one/snapshots/snap_01h455vb4pex5vsknk084sn02q", None),
    ("PUT", "/v1/workspaces/one/current", {"snapshot_id": "snap_01h455vb4pex5vsknk084sn02q"}),
    ("POST", "/v1/tasks/task_01h455vb4pex5vsknk084sn02q/retry", None),
    ("POST", "/v1/tasks/task_01h455vb4pex5vsknk084sn02q/cancel", None),
]

BAD_KEYS = ["", " ", "two words", "x" * 256, "é", '"', '"unclosed', '""', "tab\there", "a, b"]


async def test_every_asynchronous_write_needs_a_key(client: Client, active: dict[str, Any]) -> None:
    for method, path, body in KEYED_WRITES:
        content = b"" if body is None else msgspec.json.encode(body)
        response = await client.request(method, path, content=content, headers={"content-type": "application/json"})
        assert (response.status_code, response.json()["code"]) == (400, "IDEMPOTENCY_KEY_REQUIRED"), (method, path)


async def test_a_key_is_1_to_255_visible_characters(client: Client) -> None:
    for key in BAD_KEYS:
        headers = [(b"content-type", b"application/json"), (b"idempotency-key", key.encode("latin-1"))]
        response = await client.post("/v1/workspaces", content=b'{"name":"one"}', headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_REQUEST"), key
    assert (await client.read("/v1/workspaces"))["items"] == []


async def test_the_same_key_and_request_get_the_stored_answer_and_one_effect(client: Client) -> None:
    body = {"name": "one", "labels": {"b": "2", "a": "1"}}
    first = await client.write("POST", "/v1/workspaces", body, key="k" * 255)
    again = await client.write("POST", "/v1/workspaces", body, key="k" * 255)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for header in ("location", "retry-after"):
        assert again.headers[header] == first.headers[header]
    assert len((await client.read("/v1/workspaces"))["items"]) == 1


async def test_the_key_may_be_quoted_and_the_body_formatted_differently(client: Client) -> None:
    first = await client.write("POST", "/v1/workspaces", {"name": "one", "labels": {"a": "1", "b": "2"}}, key="k1")
    headers = {"content-type": "application/json; charset=utf-8", "idempotency-key": '"k1"'}
    same = b' {"labels" : {"b":"2","\\u0061":"1"},\n"name":"one"}'
    again = await client.post("/v1/workspaces", content=same, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content


async def test_an_omitted_field_equals_its_default(client: Client, active: dict[str, Any]) -> None:
    path = "/v1/workspaces/one/snapshots"
    first = await client.write("POST", path, None, key="k1")
    for body in ({}, {"labels": {}}, {"message": None}):
        again = await client.write("POST", path, body, key="k1")
        assert again.content == first.content


async def test_the_same_key_with_another_request_is_refused(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    await client.ok("POST", "/v1/workspaces", {"name": "two"})
    await executor.run()
    await client.ok("POST", "/v1/workspaces/one/snapshots", {"message": "first"}, key="k1")
    for path, body in (
        ("/v1/workspaces/one/snapshots", {"message": "second"}),
        ("/v1/workspaces/one/snapshots", None),
        ("/v1/workspaces/two/snapshots", {"message": "first"}),
        (f"/v1/workspaces/{active['id']}/snapshots", {"message": "first"}),
    ):
        response = await client.write("POST", path, body, key="k1")
        assert (response.status_code, response.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED"), (path, body)
    assert len((await client.read("/v1/workspaces/one/snapshots"))["items"]) == 1


async def test_a_key_belongs_to_its_caller_and_its_operation(client: Client, active: dict[str, Any]) -> None:
    path = "/v1/workspaces/one/snapshots"
    mine = await client.ok("POST", path, None, key="k1")
    theirs = await client.ok("POST", path, None, key="k1", x_actor="bob")
    assert mine["snapshot"]["id"] != theirs["snapshot"]["id"]
    cancelled = await client.write("POST", f"/v1/tasks/{mine['task']['id']}/cancel", key="k1")
    assert cancelled.json()["state"] == "cancelled"


async def test_a_refused_request_stores_nothing_and_may_be_repeated_with_its_key(
    client: Client, executor: Executor
) -> None:
    await client.ok("POST", "/v1/workspaces", {"name": "one"})
    path = "/v1/workspaces/one/snapshots"
    too_early = await client.write("POST", path, {"message": "m"}, key="k1")
    assert too_early.json()["code"] == "WORKSPACE_NOT_ACTIVE"
    invalid = await client.write("POST", path, {"message": 7}, key="k1")
    assert invalid.json()["code"] == "INVALID_REQUEST"
    await executor.run()
    accepted = await client.write("POST", path, {"message": "m"}, key="k1")
    assert accepted.status_code == 202
    assert "idempotent-replayed" not in accepted.headers


async def test_a_replay_returns_the_first_answer_after_the_state_has_changed(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    path = f"/v1/workspaces/one/snapshots/{ready['id']}"
    first = await client.write("DELETE", path, key="drop")
    await executor.run()
    assert (await client.write("DELETE", path)).json()["code"] == "SNAPSHOT_DROPPED"
    again = await client.write("DELETE", path, key="drop")
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    await client.ok("POST", "/v1/workspaces/one/disable")
    assert (await client.write("DELETE", path, key="drop")).content == first.content


async def test_a_replay_of_a_noop_is_a_noop(client: Client, executor: Executor, ready: dict[str, Any]) -> None:
    body = {"snapshot_id": ready["id"]}
    await client.ok("PUT", "/v1/workspaces/one/current", body)
    await executor.run()
    first = await client.write("PUT", "/v1/workspaces/one/current", body, key="k1")
    await client.ok("PUT", "/v1/workspaces/one/current", {**body, "reset": True})
    await executor.run()
    again = await client.write("PUT", "/v1/workspaces/one/current", body, key="k1")
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_replay_after_the_task_failed_and_was_retried_names_the_same_task(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    path = "/v1/workspaces/one/snapshots"
    first = await client.write("POST", path, {"message": "m"}, key="k1")
    task = f"/v1/tasks/{first.json()['task']['id']}"
    await executor.run_failing()
    retried = await client.write("POST", f"{task}/retry", key="r1")
    assert (await client.write("POST", path, {"message": "m"}, key="k1")).content == first.content

    await executor.run_failing()
    again = await client.write("POST", f"{task}/retry", key="r1")
    assert again.content == retried.content
    assert (await client.read(task))["state"] == "failed", "the repeated retry had an effect of its own"

    await client.ok("POST", f"{task}/retry", key="r2")
    await executor.run()
    waited = await client.write("POST", path, {"message": "m"}, key="k1", prefer="wait=5")
    assert waited.headers["idempotent-replayed"] == "true"
    assert waited.json()["task"]["state"] == "succeeded"
    assert waited.json()["snapshot"]["state"] == "ready"


async def test_disable_accepts_a_key_but_does_not_require_one(client: Client, active: dict[str, Any]) -> None:
    path = "/v1/workspaces/one/disable"
    headers = {"content-type": "application/json"}
    assert (await client.post(path, headers=headers)).status_code == 200
    first = await client.write("POST", path, {"reason": "x"}, key="k1")
    again = await client.write("POST", path, {"reason": "x"}, key="k1")
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (await client.write("POST", path, {"reason": "y"}, key="k1")).json()["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert (await client.post(path, headers={**headers, "idempotency-key": ""})).status_code == 400


@pytest.fixture
async def other(database_url: str, api: Api):
    """A second process of the API on the same database."""
    async with running_api(database_url) as second, client_of(second) as opened:
        yield opened


async def blocked(connection: OwnConnection, requests: int) -> None:
    """Returns when this many backends wait for a lock that `connection` holds."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
    for _ in range(500):
        if await connection.fetchval(query, connection.get_server_pid()) >= requests:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing waits for the lock")


async def test_a_key_in_flight_on_another_connection_is_a_conflict_that_may_be_repeated(
    client: Client, other: Client, active: dict[str, Any], database_url: str
) -> None:
    path, body = "/v1/workspaces/one/snapshots", {"message": "m"}
    connection = await connect(database_url, application_name="test holder")
    async with connection.transaction():
        await connection.execute("SELECT FROM wvs.streams FOR UPDATE")
        first = asyncio.create_task(client.write("POST", path, body, key="k1"))
        await blocked(connection, 1)
        second = await other.write("POST", path, body, key="k1")
        assert (second.status_code, second.json()["code"]) == (409, "IDEMPOTENCY_IN_FLIGHT")
        assert int(second.headers["retry-after"]) >= 1
    await connection.close()

    assert (await first).status_code == 202
    third = await other.write("POST", path, body, key="k1")
    assert third.headers["idempotent-replayed"] == "true"
    assert third.content == (await first).content
    assert len((await client.read(path))["items"]) == 1


async def test_many_requests_with_one_key_on_two_processes_have_one_effect(
    client: Client, other: Client, pool: Pool
) -> None:
    requests = [sender.write("POST", "/v1/workspaces", {"name": "one"}, key="k1") for sender in (client, other) * 10]
    answers = await asyncio.gather(*requests)
    bodies = {answer.content for answer in answers if answer.status_code == 202}
    assert len(bodies) == 1
    assert sum(a.status_code == 202 and "idempotent-replayed" not in a.headers for a in answers) == 1
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert {a.json()["code"] for a in answers if a.status_code == 409} <= {"IDEMPOTENCY_IN_FLIGHT"}
    assert await pool.fetchval("SELECT count(*) FROM wvs.streams") == 1
    assert await pool.fetchval("SELECT count(*) FROM wvs.queue") == 1
