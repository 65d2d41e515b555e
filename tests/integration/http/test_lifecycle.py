"""The life cycle of a workspace over HTTP, with the answers of the design."""

import re
from typing import Any

from tests.integration.http.actors import VOLUME, Client, Executor

from wvs.queue.lanes import TaskProgress

WORKSPACE_FIELDS = {
    "id", "name", "state", "labels", "current_snapshot_id", "path", "epoch", "error", "created_at", "disabled_at",
}  # fmt: skip
SNAPSHOT_FIELDS = {
    "id", "workspace_id", "state", "message", "labels", "engine", "files", "bytes", "notes", "certificate",
    "error", "created_at", "ready_at", "deleted_at",
}  # fmt: skip
TASK_FIELDS = {
    "id", "workspace_id", "snapshot_id", "kind", "state", "noop", "attempt", "max_attempts", "progress", "error",
    "created_at", "started_at", "finished_at", "next_attempt_at", "waiting_for", "notes",
}  # fmt: skip


async def test_a_workspace_is_accepted_and_becomes_active(client: Client, executor: Executor) -> None:
    response = await client.write("POST", "/v1/workspaces", {"name": "one", "labels": {"team": "a"}})
    accepted = response.json()
    assert response.status_code == 202
    assert set(accepted["workspace"]) == WORKSPACE_FIELDS
    assert set(accepted["task"]) == TASK_FIELDS
    assert accepted["workspace"]["state"] == "initializing"
    assert response.headers["location"] == f"/v1/tasks/{accepted['task']['id']}"
    assert int(response.headers["retry-after"]) >= 1

    await executor.run()
    workspace = await client.read(f"/v1/workspaces/{accepted['workspace']['id']}")
    assert workspace["state"] == "active"
    assert workspace["labels"] == {"team": "a"}
    assert workspace["path"] == f"{VOLUME}/{workspace['id']}/live/root"
    assert workspace["created_at"].endswith("Z")
    assert set(workspace) == WORKSPACE_FIELDS | {"path_replaced_by"}
    assert workspace["path_replaced_by"] is None
    assert workspace == await client.read("/v1/workspaces/one")
    task = await client.read(response.headers["location"])
    assert (task["kind"], task["state"], task["attempt"]) == ("workspace_init", "succeeded", 1)


async def test_a_snapshot_is_accepted_and_shows_its_proof(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    body = {"message": "before the change", "labels": {"run": "7"}}
    response = await client.write("POST", f"/v1/workspaces/{active['id']}/snapshots", body)
    accepted = response.json()
    assert response.status_code == 202
    assert set(accepted["snapshot"]) == SNAPSHOT_FIELDS
    assert (accepted["snapshot"]["state"], accepted["snapshot"]["notes"]) == ("creating", [])
    assert accepted["task"]["snapshot_id"] == accepted["snapshot"]["id"]

    await executor.run()
    snapshot = await client.read(f"/v1/workspaces/one/snapshots/{accepted['snapshot']['id']}")
    assert snapshot["state"] == "ready"
    assert (snapshot["message"], snapshot["labels"]) == (body["message"], body["labels"])
    assert (snapshot["engine"], snapshot["files"], snapshot["bytes"]) == ("copy", 3, 4096)
    assert snapshot["notes"] == []
    assert snapshot["certificate"]["members"][0]["session_id"].startswith("sess_")
    assert snapshot["certificate"]["stamp_before"] == snapshot["certificate"]["stamp_after"]


async def test_current_moves_with_its_epoch_and_etag(client: Client, executor: Executor, ready: dict[str, Any]) -> None:
    before = await client.get("/v1/workspaces/one/current")
    assert before.json() == {"snapshot_id": None, "path": f"{VOLUME}/{ready['workspace_id']}/live/root", "epoch": 1}
    assert before.headers["etag"] == '"1"'

    body = {"snapshot_id": ready["id"]}
    response = await client.write("PUT", "/v1/workspaces/one/current", body, if_match='"1"')
    assert response.status_code == 202
    assert response.json()["current"] == before.json()
    assert response.json()["task"]["kind"] == "current_set"

    await executor.run()
    after = await client.get("/v1/workspaces/one/current")
    assert after.json()["snapshot_id"] == ready["id"]
    assert after.headers["etag"] == '"2"'


async def test_setting_the_current_snapshot_again_is_a_noop_and_reset_is_not(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    body = {"snapshot_id": ready["id"]}
    await client.ok("PUT", "/v1/workspaces/one/current", body)
    await executor.run()

    again = await client.write("PUT", "/v1/workspaces/one/current", body)
    assert again.status_code == 200
    assert "location" not in again.headers
    assert (again.json()["task"]["state"], again.json()["task"]["noop"]) == ("succeeded", True)
    assert again.json()["current"]["snapshot_id"] == ready["id"]

    reset = await client.write("PUT", "/v1/workspaces/one/current", {**body, "reset": True})
    assert reset.status_code == 202
    await executor.run()
    assert (await client.read("/v1/workspaces/one/current"))["epoch"] == 3


async def test_a_drop_is_soft_and_hides_the_snapshot_from_lists_only(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    path = f"/v1/workspaces/one/snapshots/{ready['id']}"
    response = await client.write("DELETE", path)
    assert response.status_code == 202
    assert response.json()["snapshot"]["state"] == "dropping"
    await executor.run()

    dropped = await client.read(path)
    assert dropped["state"] == "dropped"
    assert dropped["deleted_at"] is not None
    assert (await client.read("/v1/workspaces/one/snapshots"))["items"] == []
    [shown] = (await client.read("/v1/workspaces/one/snapshots", include_deleted=True))["items"]
    assert shown == dropped


async def test_a_failed_initialisation_shows_its_error_and_can_be_retried(client: Client, executor: Executor) -> None:
    await client.ok("POST", "/v1/workspaces", {"name": "one"})
    await executor.run_failing()
    failed = await client.read("/v1/workspaces/one")
    assert failed["state"] == "init_failed"
    assert failed["error"]["code"] == "CLONE_FAILED"
    assert set(failed["error"]) == {"code", "detail", "hint", "retryable"}

    response = await client.write("POST", "/v1/workspaces/one/retry-init", {})
    assert response.status_code == 202
    assert response.json()["workspace"]["state"] == "initializing"
    assert response.json()["task"]["state"] == "queued"
    await executor.run()
    assert (await client.read("/v1/workspaces/one"))["state"] == "active"


async def test_disable_is_synchronous_final_and_may_be_repeated(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    queued = await client.ok("POST", "/v1/workspaces/one/snapshots")
    for _ in range(2):
        response = await client.post(
            "/v1/workspaces/one/disable", json={"reason": "done"}, headers={"content-type": "application/json"}
        )
        assert response.status_code == 200
        assert set(response.json()) == WORKSPACE_FIELDS
        assert response.json()["state"] == "disabled"
    assert (await client.read(f"/v1/tasks/{queued['task']['id']}"))["state"] == "cancelled"
    refused = await client.write("POST", "/v1/workspaces/one/snapshots")
    assert refused.json()["code"] == "WORKSPACE_DISABLED"
    assert (await client.read(f"/v1/workspaces/{active['id']}"))["disabled_at"] is not None


async def test_a_failed_task_is_retried_and_a_queued_one_cancelled(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    made = await client.ok("POST", "/v1/workspaces/one/snapshots")
    path = f"/v1/tasks/{made['task']['id']}"
    await executor.run_failing()
    failed = await client.read(path)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "CLONE_FAILED")

    retried = await client.write("POST", f"{path}/retry")
    assert retried.status_code == 202
    assert (retried.json()["id"], retried.json()["state"], retried.json()["error"]) == (failed["id"], "queued", None)

    cancelled = await client.write("POST", f"{path}/cancel", {})
    assert cancelled.status_code == 202
    assert cancelled.headers["location"] == path
    assert cancelled.json()["state"] == "cancelled"


async def test_a_running_task_shows_the_progress_of_its_executor(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    made = await client.ok("POST", "/v1/workspaces/one/snapshots")
    held = await executor.start()
    path = f"/v1/tasks/{made['task']['id']}"
    assert (await client.read(path))["progress"] is None
    await executor.progress(held, TaskProgress("clone", 10, 100, 1_000, None))
    expected = {"phase": "clone", "files_done": 10, "files_total": 100, "bytes_done": 1_000, "bytes_total": None}
    assert (await client.read(path))["progress"] == expected
    assert (await client.read("/v1/tasks", state="running"))["items"][0]["progress"] == expected

    await executor.finish(held)
    done = (await client.read(path))["progress"]
    assert (done["phase"], done["files_done"], done["bytes_total"]) == ("done", 3, 4096)


async def test_disabling_abandons_failed_tasks_so_that_nothing_alerts_for_ever(
    client: Client, executor: Executor, ready: dict[str, Any]
) -> None:
    base = "/v1/workspaces/one"
    first = await client.ok("POST", f"{base}/snapshots", {})
    await executor.run_failing()
    second = await client.ok("PUT", f"{base}/current", {"snapshot_id": ready["id"]})
    await executor.run_failing()
    assert await failed_tasks(client) == {"snapshot_create": 1, "current_set": 1}

    disabled = (await client.write("POST", f"{base}/disable", {})).json()
    assert await failed_tasks(client) == {}
    for accepted in (first, second):
        task = await client.read(f"/v1/tasks/{accepted['task']['id']}")
        assert (task["state"], task["error"]["code"]) == ("cancelled", "CLONE_FAILED")
    events = (await client.read(f"/v1/workspaces/{disabled['id']}/events"))["items"]
    assert [event["type"] for event in events][-3:] == [
        "workspace.disabled.v1",
        "task.cancelled.v1",
        "task.cancelled.v1",
    ]
    again = await client.write("POST", f"/v1/workspaces/{disabled['id']}/disable", {})
    assert again.status_code == 200
    assert (await client.read(f"/v1/workspaces/{disabled['id']}/events"))["items"] == events


async def failed_tasks(client: Client) -> dict[str, int]:
    """What `wvs_tasks` shows as failed, by kind, without the zeros."""
    shown = (await client.get("/metrics")).text
    found = re.findall(r'^wvs_tasks{kind="(\w+)",state="failed"} (\d+)', shown, re.MULTILINE)
    return {kind: int(count) for kind, count in found if int(count)}
