"""Every refusal of the design's table of error codes that a request can meet."""

import asyncio
from typing import Any

from tests.integration.http.actors import BROKEN, GONE, Client, Executor, now
from tests.integration.http.refusing import SNAP, TASK, WS, refused

from wvs.domain.commands import ReportLost
from wvs.domain.errors import STATUS, ErrorCode
from wvs.domain.ids import SNAPSHOT, parse_id
from wvs.http.app import Api
from wvs.postgres.pool import Pool
from wvs.queue.lanes import Claim


async def test_a_missing_resource_is_not_found(client: Client, active: dict[str, Any]) -> None:
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


async def test_a_snapshot_of_another_workspace_is_not_found(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    await client.ok("POST", "/v1/workspaces", {"name": "two"})
    await executor.run()
    refused(await client.get(f"/v1/workspaces/two/snapshots/{ready['id']}"), "SNAPSHOT_NOT_FOUND")
    refused(await client.write("DELETE", f"/v1/workspaces/two/snapshots/{ready['id']}"), "SNAPSHOT_NOT_FOUND")
    body = {"snapshot_id": ready["id"]}
    refused(await client.write("PUT", "/v1/workspaces/two/current", body), "SNAPSHOT_NOT_FOUND")


async def test_a_name_is_in_use_until_its_workspace_is_disabled(client: Client) -> None:
    await client.ok("POST", "/v1/workspaces", {"name": "one"})
    refused(await client.write("POST", "/v1/workspaces", {"name": "one"}), "WORKSPACE_NAME_TAKEN")
    await client.ok("POST", "/v1/workspaces/one/disable")
    await client.ok("POST", "/v1/workspaces", {"name": "one"})


async def test_concurrent_requests_for_one_name_create_one_workspace(client: Client) -> None:
    answers = await asyncio.gather(*(client.write("POST", "/v1/workspaces", {"name": "one"}) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 11
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"WORKSPACE_NAME_TAKEN"}


async def test_a_workspace_that_is_not_active_accepts_no_writes(client: Client, executor: Executor) -> None:
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


async def test_a_cancel_is_requested_of_a_running_task_and_gives_up_a_failed_one(
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


async def test_a_queue_has_at_most_a_hundred_tasks(client: Client, active: dict[str, Any]) -> None:
    for _ in range(100):
        await client.ok("POST", "/v1/workspaces/one/snapshots")
    response = await client.write("POST", "/v1/workspaces/one/snapshots")
    problem = refused(response, "WORKSPACE_QUEUE_FULL")
    assert (problem["limit"], int(response.headers["retry-after"]) > 0) == (100, True)


async def test_a_noop_is_refused_while_the_path_shows_something_else(
    client: Client, executor: Executor, pool: Pool, ready: dict[str, Any]
) -> None:
    path, body = "/v1/workspaces/one/current", {"snapshot_id": ready["id"]}
    await client.ok("PUT", path, body)
    await executor.run()
    await pool.execute("UPDATE wvs.lanes SET path_replaced_by = 'a directory'")  # as an executor notes it
    for name in ("one", ready["workspace_id"]):
        refusal = refused(await client.write("PUT", f"/v1/workspaces/{name}/current", body), "PATH_REPLACED")
        assert "a directory" in refusal["detail"]
        assert "wvs volume check --repair" in refusal["hint"]
    assert (await client.write("PUT", path, {**body, "reset": True})).status_code == 202, "its task clears the path"
    await pool.execute("UPDATE wvs.lanes SET path_replaced_by = NULL")
    await executor.run()
    assert (await client.write("PUT", path, body)).status_code == 200


async def test_if_match_matches_only_the_epoch_and_only_while_no_task_will_change_it(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    path, body = "/v1/workspaces/one/current", {"snapshot_id": ready["id"]}
    for stale in ('"2"', '"0"', '"1.0"', '"01"', '"x"', '"2", "3"'):
        problem = refused(await client.write("PUT", path, body, if_match=stale), "CURRENT_CHANGED")
        assert problem["epoch"] == 1
    for malformed in ("1", '"1', "", "'1'", '"1" "2"', 'W/"1"'):
        refused(await client.write("PUT", path, body, if_match=malformed), "INVALID_REQUEST")
    accepted = await client.ok("PUT", path, body, if_match='"7", "1"')
    problem = refused(await client.write("PUT", path, body, if_match='"1"'), "CURRENT_CHANGED")
    assert problem["blockers"] == [{"kind": "task", "id": accepted["task"]["id"]}]
    await client.ok("PUT", path, {**body, "reset": True}, if_match="*")
    await executor.run()


async def test_every_code_with_a_status_is_declared_by_an_operation(api: Api) -> None:
    declared = {
        code
        for item in api.document()["paths"].values()
        for operation in item.values()
        for response in operation["responses"].values()
        for code in response["content"].get("application/problem+json", {}).get("examples", {})
    }
    of_no_operation = {ErrorCode.METHOD_NOT_ALLOWED}
    assert declared == set(STATUS) - of_no_operation


async def test_a_task_that_waits_for_a_retry_shows_the_time_and_the_reason(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    made = await client.ok("POST", "/v1/workspaces/one/snapshots")
    await executor.run_failing(GONE)
    task = await client.read(f"/v1/tasks/{made['task']['id']}")
    assert (task["state"], task["attempt"], task["error"]["code"]) == ("queued", 1, "LEASE_LOST")
    assert task["next_attempt_at"] > now().isoformat()
