"""Malformed ids, paths and bodies, and the largest valid values."""

from typing import Any

import msgspec
import pytest
from tests.integration.http.actors import Client, Executor
from tests.integration.http.refusing import SNAP, TASK, WS, refused

from wvs.postgres.pool import Pool


async def test_ids_of_the_wrong_kind_are_not_found(client: Client, ready: dict[str, Any]) -> None:
    task = (await client.read("/v1/tasks"))["items"][0]["id"]
    ws, snap = ready["workspace_id"], ready["id"]
    for path, code in (
        (f"/v1/workspaces/{snap}", "WORKSPACE_NOT_FOUND"),
        (f"/v1/workspaces/{task}", "WORKSPACE_NOT_FOUND"),
        (f"/v1/workspaces/{ws.upper()}", "WORKSPACE_NOT_FOUND"),
        (f"/v1/workspaces/{ws[:-1]}", "WORKSPACE_NOT_FOUND"),
        (f"/v1/workspaces/{ws}x", "WORKSPACE_NOT_FOUND"),
        (f"/v1/workspaces/ws_{'z' * 26}", "WORKSPACE_NOT_FOUND"),
        (f"/v1/workspaces/ws_{'l' * 26}", "WORKSPACE_NOT_FOUND"),
        ("/v1/workspaces/ws_", "WORKSPACE_NOT_FOUND"),
        (f"/v1/workspaces/one/snapshots/{task}", "SNAPSHOT_NOT_FOUND"),
        (f"/v1/workspaces/one/snapshots/{ws}", "SNAPSHOT_NOT_FOUND"),
        ("/v1/workspaces/one/snapshots/latest", "SNAPSHOT_NOT_FOUND"),
        (f"/v1/tasks/{snap}", "TASK_NOT_FOUND"),
        ("/v1/tasks/1", "TASK_NOT_FOUND"),
        (f"/v1/tasks/{snap}/retry", "METHOD_NOT_ALLOWED"),
    ):
        refused(await client.get(path), code)
    for path, code in (
        (f"/v1/workspaces/{task}/snapshots", "WORKSPACE_NOT_FOUND"),
        (f"/v1/tasks/{ws}/cancel", "TASK_NOT_FOUND"),
    ):
        refused(await client.write("POST", path), code)
    for snapshot_id in (task, ws, "latest", snap.upper(), f"{snap}\n", None, 7):
        problem = refused(
            await client.write("PUT", "/v1/workspaces/one/current", {"snapshot_id": snapshot_id}), "INVALID_REQUEST"
        )
        assert problem["errors"][0]["field"] == "snapshot_id"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/workspaces/..%2f..%2fetc",
        "/v1/workspaces/%2e%2e/events",
        "/v1/workspaces/..",
        "/v1/workspaces/%2e%2e%2f%2e%2e%2fetc%2fpasswd/snapshots",
        "/v1/workspaces/one%00",
        "/v1/workspaces/%00",
        "/v1/tasks/%00",
        "/v1/tasks/../workspaces/%252e%252e",
        "/v1/workspaces/one/snapshots/..%2f..",
        "/v1/workspaces/%ff%fe",
        "/v1/workspaces/" + "x" * 5000,
        "/v1/workspaces/one;drop table",
        "/v1/workspaces/'%20OR%201=1--",
    ],
)
async def test_paths_cannot_escape_their_route(client: Client, path: str) -> None:
    response = await client.get(path)
    refused(response, response.json()["code"])
    assert response.status_code in {400, 404}


BAD_WORKSPACES: list[tuple[Any, str]] = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": "x" * 64}, "name"),
    ({"name": "../etc"}, "name"),
    ({"name": ".."}, "name"),
    ({"name": "a/b"}, "name"),
    ({"name": "a\x00"}, ""),
    ({"name": "a b"}, "name"),
    ({"name": "A"}, "name"),
    ({"name": "-a"}, "name"),
    ({"name": "a-"}, "name"),
    ({"name": "é"}, "name"),
    ({"name": WS}, "name"),
    ({"name": 7}, "name"),
    ({"name": None}, "name"),
    ({"name": ["a"]}, "name"),
    ({"name": "a", "labels": None}, "labels"),
    ({"name": "a", "labels": []}, "labels"),
    ({"name": "a", "labels": {"k": 1}}, "labels[...]"),
    ({"name": "a", "labels": {"": "v"}}, "labels"),
    ({"name": "a", "labels": {"k" * 64: "v"}}, "labels"),
    ({"name": "a", "labels": {"k=": "v"}}, "labels"),
    ({"name": "a", "labels": {"k": "v" * 256}}, "labels[...]"),
    ({"name": "a", "labels": {"k": "v\x00"}}, "labels[...]"),
    ({"name": "a", "labels": {f"k{n}": "v" for n in range(33)}}, "labels"),
    ({"name": "a", "colour": "red"}, "colour"),
    ([], ""),
    ("a", ""),
    (None, ""),
]


async def test_an_invalid_workspace_is_refused_by_field(client: Client, pool: Pool) -> None:
    for body, field in BAD_WORKSPACES:
        content = msgspec.json.encode(body)
        headers = {"content-type": "application/json", "idempotency-key": "k1"}
        problem = refused(await client.post("/v1/workspaces", content=content, headers=headers), "INVALID_REQUEST")
        [error] = problem["errors"]
        if field:
            assert error["field"].startswith(field), (body, error)
        assert error["in"] == "body"
    refused(await client.write("POST", "/v1/workspaces", {"name": "a\n"}), "INVALID_REQUEST")
    refused(await client.write("POST", "/v1/workspaces", {"name": "a", "labels": {"k\n": "v"}}), "INVALID_REQUEST")
    assert await pool.fetchval("SELECT count(*) FROM wvs.events") == 0


async def test_invalid_bodies_of_the_other_writes_are_refused_by_field(client: Client, active: dict[str, Any]) -> None:
    one = "/v1/workspaces/one"
    for method, path, body, field in (
        ("POST", f"{one}/snapshots", {"message": "m" * 2001}, "message"),
        ("POST", f"{one}/snapshots", {"message": 7}, "message"),
        ("POST", f"{one}/snapshots", {"message": "\x00"}, "message"),
        ("POST", f"{one}/snapshots", {"labels": {"a": None}}, "labels[...]"),
        ("POST", f"{one}/snapshots", {"name": "x"}, "name"),
        ("POST", f"{one}/disable", {"reason": "r" * 2001}, "reason"),
        ("POST", f"{one}/disable", {"force": True}, "force"),
        ("POST", f"{one}/retry-init", {"force": True}, "force"),
        ("POST", f"/v1/tasks/{TASK}/retry", {"force": True}, "force"),
        ("POST", f"/v1/tasks/{TASK}/cancel", [], ""),
        ("PUT", f"{one}/current", {}, "snapshot_id"),
        ("PUT", f"{one}/current", {"snapshot_id": SNAP, "reset": "yes"}, "reset"),
        ("PUT", f"{one}/current", {"snapshot_id": SNAP, "reset": 1}, "reset"),
        ("PUT", f"{one}/current", {"snapshot_id": SNAP, "force": True}, "force"),
    ):
        problem = refused(await client.write(method, path, body), "INVALID_REQUEST")
        assert problem["errors"][0]["field"] == field, (path, body)
    assert (await client.read(one))["state"] == "active"


async def test_invalid_bodies_of_session_writes_are_refused_by_field(client: Client, active: dict[str, Any]) -> None:
    sessions, new = "/v1/workspaces/one/sessions", {"agent": "a", "host": "h"}
    registered = await client.write("POST", sessions, new)
    one, secret = f"/v1/sessions/{registered.json()['session']['id']}", registered.json()["secret"]
    frozen = {"kind": "frozen", "freeze": 1, "token": "t", "flush": "ok"}
    for path, body, field in (
        (sessions, None, ""),
        (sessions, {"agent": "a"}, "host"),
        (sessions, {**new, "agent": ""}, "agent"),
        (sessions, {**new, "agent": "a" * 201}, "agent"),
        (sessions, {**new, "agent": "a\x00"}, "agent"),
        (sessions, {**new, "host": "h" * 256}, "host"),
        (sessions, {**new, "pid": 0}, "pid"),
        (sessions, {**new, "pid": 2**31}, "pid"),
        (sessions, {**new, "pid": "1"}, "pid"),
        (sessions, {**new, "lease_s": 4}, "lease_s"),
        (sessions, {**new, "lease_s": 601}, "lease_s"),
        (sessions, {**new, "lease_s": None}, "lease_s"),
        (sessions, {**new, "user": "root"}, "user"),
        (f"{one}/acks", {}, "kind"),
        (f"{one}/acks", {"kind": "melted"}, "kind"),
        (f"{one}/acks", {**frozen, "freeze": 0}, "freeze"),
        (f"{one}/acks", {**frozen, "freeze": 2**62 + 1}, "freeze"),
        (f"{one}/acks", {**frozen, "token": ""}, "token"),
        (f"{one}/acks", {**frozen, "token": "t" * 101}, "token"),
        (f"{one}/acks", {**frozen, "flush": "f" * 501}, "flush"),
        (f"{one}/acks", {**frozen, "reason": "r"}, "reason"),
        (f"{one}/acks", {"kind": "frozen", "freeze": 1, "token": "t"}, "flush"),
        (f"{one}/acks", {"kind": "refused", "freeze": 1}, "reason"),
        (f"{one}/acks", {"kind": "refused", "freeze": 1, "reason": "r" * 2001}, "reason"),
        (f"{one}/acks", {"kind": "still_frozen", "freeze": 1}, "token"),
        (f"{one}/acks", {"kind": "switched"}, "epoch"),
        (f"{one}/acks", {"kind": "switched", "epoch": -1}, "epoch"),
        (f"{one}/evict", {"reason": 7}, "reason"),
        (f"{one}/evict", {"force": True}, "force"),
    ):
        problem = refused(await client.write("POST", path, body, x_session_secret=secret), "INVALID_REQUEST")
        assert problem["errors"][0]["field"] == field, (path, body, problem)
    assert [item["state"] for item in (await client.read(sessions))["items"]] == ["active"]


@pytest.mark.parametrize("after", [-1, -(10**30), 2**63, 10**30])
async def test_a_number_that_no_directive_can_have_is_refused_before_the_shared_query(
    client: Client, active: dict[str, Any], after: int
) -> None:
    """One query sends the numbers of all waiting sessions to Postgres: one invalid number would fail it for all."""
    body = {"agent": "a", "host": "h"}
    registered = await client.write("POST", f"/v1/workspaces/{active['id']}/sessions", body)
    one, query = f"/v1/sessions/{registered.json()['session']['id']}", f"after={after}&wait=0.01"
    acknowledgement = {"kind": "switched", "epoch": 1}
    answers = [
        await client.get(f"{one}/directive?{query}"),
        await client.write("POST", f"{one}/acks?{query}", acknowledgement),
    ]
    for answer in answers:
        assert refused(answer, "INVALID_REQUEST")["errors"][0]["field"] == "after"


async def test_an_invalid_name_is_explained(client: Client) -> None:
    problem = refused(await client.write("POST", "/v1/workspaces", {"name": "My Project"}), "INVALID_REQUEST")
    assert problem["detail"] == (
        "body name: must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end, "
        "not 'My Project'"
    )
    problem = refused(await client.get("/v1/workspaces", params={"name": "My Project"}), "INVALID_REQUEST")
    assert "lower-case letters" in problem["detail"]


async def test_the_longest_values_are_accepted(client: Client, executor: Executor) -> None:
    labels = {f"{n:02}" + "k" * 61: "é" * 255 for n in range(32)}
    made = await client.ok("POST", "/v1/workspaces", {"name": "x" * 63, "labels": labels})
    assert made["workspace"]["labels"] == labels
    await executor.run()
    message = "\u2028 \U0001f600 \\ \" ' \t\n" + "m" * 1900
    snapshot = await client.ok("POST", f"/v1/workspaces/{'x' * 63}/snapshots", {"message": message, "labels": labels})
    assert snapshot["snapshot"]["message"] == message
    assert snapshot["snapshot"]["labels"] == labels
    key, value = next(iter(labels.items()))
    found = await client.read(f"/v1/workspaces/{'x' * 63}/snapshots", label=f"{key}={value}")
    assert [item["id"] for item in found["items"]] == [snapshot["snapshot"]["id"]]
