"""Every refusal of the contract's table that a request can meet, and input that nobody should send."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from tests.integration.http.actors import BROKEN, GONE, Client, Executor, now

from wvs.domain.commands import ReportLost
from wvs.domain.errors import STATUS, ErrorCode
from wvs.domain.ids import SNAPSHOT, parse_id
from wvs.http.app import Api
from wvs.postgres.pool import Pool
from wvs.queue.lanes import Claim

SNAP = "snap_01h455vb4pex5vsknk084sn02q"
TASK = "task_01h455vb4pex5vsknk084sn02q"
WS = "ws_01h455vb4pex5vsknk084sn02q"


def refused(response: httpx.Response, code: str) -> dict[str, Any]:
    """The problem, which is whole and says `code`."""
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["status"]) == (code, response.status_code), problem
    assert response.status_code == STATUS[ErrorCode(code)]
    assert problem["type"] == f"/problems/{code}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    assert problem["hint"]
    assert ("retry-after" in response.headers) == (response.status_code in {429, 503})
    return problem


async def test_what_does_not_exist_is_not_found(client: Client, active: dict[str, Any]) -> None:
    one = "/v1/workspaces/one"
    for method, path, body, code in (
        ("GET", "/v1/workspaces/none", None, "WORKSPACE_NOT_FOUND"),
        ("GET", f"/v1/workspaces/{WS}", None, "WORKSPACE_NOT_FOUND"),
        ("GET", f"/v1/workspaces/{WS}/current", None, "WORKSPACE_NOT_FOUND"),
        ("GET", f"/v1/workspaces/{WS}/snapshots", None, "WORKSPACE_NOT_FOUND"),
        ("GET", f"/v1/workspaces/{WS}/snapshots/{SNAP}", None, "WORKSPACE_NOT_FOUND"),
        ("GET", f"/v1/workspaces/{WS}/events", None, "WORKSPACE_NOT_FOUND"),
        ("POST", f"/v1/workspaces/{WS}/retry-init", None, "WORKSPACE_NOT_FOUND"),
        ("POST", f"/v1/workspaces/{WS}/disable", None, "WORKSPACE_NOT_FOUND"),
        ("POST", f"/v1/workspaces/{WS}/snapshots", None, "WORKSPACE_NOT_FOUND"),
        ("POST", "/v1/workspaces/none/snapshots", None, "WORKSPACE_NOT_FOUND"),
        ("DELETE", f"/v1/workspaces/{WS}/snapshots/{SNAP}", None, "WORKSPACE_NOT_FOUND"),
        ("PUT", f"/v1/workspaces/{WS}/current", {"snapshot_id": SNAP}, "WORKSPACE_NOT_FOUND"),
        ("GET", f"{one}/snapshots/{SNAP}", None, "SNAPSHOT_NOT_FOUND"),
        ("DELETE", f"{one}/snapshots/{SNAP}", None, "SNAPSHOT_NOT_FOUND"),
        ("PUT", f"{one}/current", {"snapshot_id": SNAP}, "SNAPSHOT_NOT_FOUND"),
        ("GET", f"/v1/tasks/{TASK}", None, "TASK_NOT_FOUND"),
        ("POST", f"/v1/tasks/{TASK}/retry", None, "TASK_NOT_FOUND"),
        ("POST", f"/v1/tasks/{TASK}/cancel", None, "TASK_NOT_FOUND"),
        ("GET", "/v1/nothing", None, "ROUTE_NOT_FOUND"),
        ("PATCH", one, None, "METHOD_NOT_ALLOWED"),
    ):
        refused(await client.write(method, path, body), code)


async def test_ids_of_the_wrong_kind_name_nothing(client: Client, ready: dict[str, Any]) -> None:
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


async def test_a_snapshot_of_another_workspace_is_not_found(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    await client.ok("POST", "/v1/workspaces", {"name": "two"})
    await executor.run()
    refused(await client.get(f"/v1/workspaces/two/snapshots/{ready['id']}"), "SNAPSHOT_NOT_FOUND")
    refused(await client.write("DELETE", f"/v1/workspaces/two/snapshots/{ready['id']}"), "SNAPSHOT_NOT_FOUND")
    body = {"snapshot_id": ready["id"]}
    refused(await client.write("PUT", "/v1/workspaces/two/current", body), "SNAPSHOT_NOT_FOUND")


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
async def test_paths_that_want_to_go_elsewhere_stay_here(client: Client, path: str) -> None:
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


async def test_a_workspace_that_cannot_be_is_refused_by_field(client: Client, pool: Pool) -> None:
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


async def test_bodies_of_the_other_writes_are_refused_by_field(client: Client, active: dict[str, Any]) -> None:
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


async def test_bodies_of_the_sessions_writes_are_refused_by_field(client: Client, active: dict[str, Any]) -> None:
    sessions, new = "/v1/workspaces/one/sessions", {"agent": "a", "host": "h"}
    registered = await client.write("POST", sessions, new)
    one = f"/v1/sessions/{registered.json()['session']['id']}"
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
        problem = refused(await client.write("POST", path, body), "INVALID_REQUEST")
        assert problem["errors"][0]["field"] == field, (path, body, problem)
    assert [item["state"] for item in (await client.read(sessions))["items"]] == ["active"]


@pytest.mark.parametrize("after", [-1, -(10**30), 2**63, 10**30])
async def test_a_number_that_no_directive_can_have_is_refused_before_all_who_wait_are_looked_for(
    client: Client, active: dict[str, Any], after: int
) -> None:
    """Their numbers go to Postgres in one query, which one of them could fail for all."""
    body = {"agent": "a", "host": "h"}
    registered = await client.write("POST", f"/v1/workspaces/{active['id']}/sessions", body)
    one, query = f"/v1/sessions/{registered.json()['session']['id']}", f"after={after}&wait=0.01"
    word = {"kind": "switched", "epoch": 1}
    asked, said = await client.get(f"{one}/directive?{query}"), await client.write("POST", f"{one}/acks?{query}", word)
    for answer in (asked, said):
        assert refused(answer, "INVALID_REQUEST")["errors"][0]["field"] == "after"


async def test_an_invalid_name_is_explained_in_words(client: Client) -> None:
    problem = refused(await client.write("POST", "/v1/workspaces", {"name": "My Project"}), "INVALID_REQUEST")
    assert problem["detail"] == (
        "body name: must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end, "
        "not 'My Project'"
    )
    problem = refused(await client.get("/v1/workspaces", params={"name": "My Project"}), "INVALID_REQUEST")
    assert "lower-case letters" in problem["detail"]


async def test_the_longest_values_are_taken(client: Client, executor: Executor) -> None:
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


async def test_a_name_in_use_is_taken_until_its_workspace_is_disabled(client: Client) -> None:
    await client.ok("POST", "/v1/workspaces", {"name": "one"})
    refused(await client.write("POST", "/v1/workspaces", {"name": "one"}), "WORKSPACE_NAME_TAKEN")
    await client.ok("POST", "/v1/workspaces/one/disable")
    await client.ok("POST", "/v1/workspaces", {"name": "one"})


async def test_one_name_asked_for_at_once_is_given_once(client: Client) -> None:
    answers = await asyncio.gather(*(client.write("POST", "/v1/workspaces", {"name": "one"}) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 11
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"WORKSPACE_NAME_TAKEN"}


async def test_a_workspace_that_is_not_active_takes_no_work(client: Client, executor: Executor) -> None:
    await client.ok("POST", "/v1/workspaces", {"name": "one"})
    one = "/v1/workspaces/one"
    writes: list[tuple[str, str, Any]] = [
        ("POST", f"{one}/snapshots", None),
        ("DELETE", f"{one}/snapshots/{SNAP}", None),
        ("PUT", f"{one}/current", {"snapshot_id": SNAP}),
    ]
    for write in writes:
        refused(await client.write(*write), "WORKSPACE_NOT_ACTIVE")
    refused(await client.write("POST", f"{one}/retry-init"), "WORKSPACE_NOT_INIT_FAILED")
    await executor.run()
    refused(await client.write("POST", f"{one}/retry-init"), "WORKSPACE_NOT_INIT_FAILED")
    task = (await client.read("/v1/tasks"))["items"][0]["id"]
    await client.ok("POST", f"{one}/disable")
    for write in (
        *writes,
        ("POST", f"{one}/retry-init", None),
        ("POST", f"/v1/tasks/{task}/retry", None),
        ("POST", f"/v1/tasks/{task}/cancel", None),
    ):
        refused(await client.write(*write), "WORKSPACE_DISABLED")


async def test_only_a_ready_snapshot_can_become_current(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    snapshots, current = "/v1/workspaces/one/snapshots", "/v1/workspaces/one/current"
    made = await client.ok("POST", snapshots)
    body = {"snapshot_id": made["snapshot"]["id"]}
    assert refused(await client.write("PUT", current, body), "SNAPSHOT_NOT_READY")["state"] == "creating"
    await executor.run_failing()
    assert refused(await client.write("PUT", current, body), "SNAPSHOT_NOT_READY")["state"] == "failed"

    body = {"snapshot_id": ready["id"]}
    await client.ok("DELETE", f"{snapshots}/{ready['id']}")
    assert refused(await client.write("PUT", current, body), "SNAPSHOT_NOT_READY")["state"] == "dropping"
    await executor.run()
    refused(await client.write("PUT", current, body), "SNAPSHOT_DROPPED")
    refused(await client.write("DELETE", f"{snapshots}/{ready['id']}"), "SNAPSHOT_DROPPED")


async def test_a_drop_in_use_names_every_blocker(client: Client, executor: Executor, ready: dict[str, Any]) -> None:
    path, body = f"/v1/workspaces/one/snapshots/{ready['id']}", {"snapshot_id": ready["id"]}
    await client.ok("PUT", "/v1/workspaces/one/current", body)
    await executor.run()
    failed = await client.ok("PUT", "/v1/workspaces/one/current", {**body, "reset": True})
    await executor.run_failing()
    queued = await client.ok("PUT", "/v1/workspaces/one/current", {**body, "reset": True})
    problem = refused(await client.write("DELETE", path), "SNAPSHOT_IN_USE")
    assert problem["blockers"] == [
        {"kind": "current"},
        {"kind": "task", "id": failed["task"]["id"]},
        {"kind": "task", "id": queued["task"]["id"]},
    ]


async def test_a_lost_snapshot_is_not_ready_but_can_be_dropped(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    snapshot_id = parse_id(SNAPSHOT, ready["id"])
    await executor.command(ready["workspace_id"], ReportLost(snapshot_id, "its directory is missing"))
    path = f"/v1/workspaces/one/snapshots/{ready['id']}"
    assert (await client.read(path))["state"] == "lost"
    body = {"snapshot_id": ready["id"]}
    refused(await client.write("PUT", "/v1/workspaces/one/current", body), "SNAPSHOT_NOT_READY")
    await client.ok("DELETE", path)


async def test_a_task_is_retried_only_when_failed_and_cancelled_only_before_its_end(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    made = await client.ok("POST", "/v1/workspaces/one/snapshots")
    path = f"/v1/tasks/{made['task']['id']}"
    refused(await client.write("POST", f"{path}/retry"), "TASK_NOT_RETRYABLE")
    held = await executor.start()
    refused(await client.write("POST", f"{path}/retry"), "TASK_NOT_RETRYABLE")
    await executor.finish(held)
    refused(await client.write("POST", f"{path}/retry"), "TASK_NOT_RETRYABLE")
    refused(await client.write("POST", f"{path}/cancel"), "TASK_NOT_CANCELLABLE")


async def test_a_running_task_is_asked_to_cancel_and_a_failed_one_is_abandoned(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    made = await client.ok("POST", "/v1/workspaces/one/snapshots")
    path = f"/v1/tasks/{made['task']['id']}"
    held: Claim = await executor.start()
    for _ in range(2):
        asked = await client.write("POST", f"{path}/cancel")
        assert (asked.status_code, asked.json()["state"]) == (202, "running")
    await executor.fail(held, BROKEN)
    assert (await client.read(path))["state"] == "cancelled"

    made = await client.ok("POST", "/v1/workspaces/one/snapshots")
    await executor.run_failing()
    abandoned = await client.ok("POST", f"/v1/tasks/{made['task']['id']}/cancel")
    assert abandoned["state"] == "cancelled"
    refused(await client.write("POST", f"/v1/tasks/{made['task']['id']}/retry"), "TASK_NOT_RETRYABLE")


async def test_the_hundredth_queued_task_is_the_last(client: Client, active: dict[str, Any]) -> None:
    for _ in range(100):
        await client.ok("POST", "/v1/workspaces/one/snapshots")
    response = await client.write("POST", "/v1/workspaces/one/snapshots")
    problem = refused(response, "WORKSPACE_QUEUE_FULL")
    assert (problem["limit"], int(response.headers["retry-after"]) > 0) == (100, True)


async def test_if_match_holds_for_the_epoch_alone_and_not_while_it_is_about_to_change(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    path, body = "/v1/workspaces/one/current", {"snapshot_id": ready["id"]}
    for stale in ('"2"', '"0"', 'W/"1"', '"1.0"', '"01"', '"x"', '"2", "3"'):
        problem = refused(await client.write("PUT", path, body, if_match=stale), "CURRENT_CHANGED")
        assert problem["epoch"] == 1
    for malformed in ("1", '"1', "", "'1'", '"1" "2"'):
        refused(await client.write("PUT", path, body, if_match=malformed), "INVALID_REQUEST")
    accepted = await client.ok("PUT", path, body, if_match='"7", "1"')
    problem = refused(await client.write("PUT", path, body, if_match='"1"'), "CURRENT_CHANGED")
    assert problem["blockers"] == [{"kind": "task", "id": accepted["task"]["id"]}]
    await client.ok("PUT", path, {**body, "reset": True}, if_match="*")
    await executor.run()


async def test_every_code_with_a_status_is_declared_where_it_can_come_up(api: Api) -> None:
    declared = {
        code
        for item in api.document()["paths"].values()
        for operation in item.values()
        for response in operation["responses"].values()
        for code in response["content"].get("application/problem+json", {}).get("examples", {})
    }
    of_no_operation = {ErrorCode.METHOD_NOT_ALLOWED}
    assert declared == set(STATUS) - of_no_operation


async def test_an_attempt_that_waits_for_its_retry_shows_when_and_why(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    made = await client.ok("POST", "/v1/workspaces/one/snapshots")
    await executor.run_failing(GONE)
    task = await client.read(f"/v1/tasks/{made['task']['id']}")
    assert (task["state"], task["attempt"], task["error"]["code"]) == ("queued", 1, "LEASE_LOST")
    assert task["next_attempt_at"] > now().isoformat()
