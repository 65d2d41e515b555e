from tests.integration.wvsctl.consoles import Wvsctl


def test_list_filters_by_workspace_state_and_kind(wvsctl: Wvsctl, workspace: str, snapshot: str) -> None:
    tasks = wvsctl.json("task", "list", "--workspace", workspace)["items"]
    assert [task["kind"] for task in tasks] == ["snapshot_create", "workspace_init"]
    rows = wvsctl.ok("task", "list", "--workspace", workspace, "--kind", "snapshot_create").out.splitlines()
    assert rows[1].split()[:3] == [tasks[0]["id"], "snapshot_create", "succeeded"]
    assert snapshot in rows[1]
    assert wvsctl.json("task", "list", "--workspace", workspace, "--state", "failed")["items"] == []


def test_get_prints_the_apis_json_byte_for_byte_or_one_line_per_field(wvsctl: Wvsctl, workspace: str) -> None:
    task = wvsctl.json("task", "list", "--workspace", workspace)["items"][0]["id"]
    assert wvsctl.ok("task", "get", task, "--json").out.encode() == wvsctl.raw(f"/v1/tasks/{task}") + b"\n"
    out = wvsctl.ok("task", "get", task).out
    assert "kind       workspace_init" in out
    assert "state      succeeded" in out
    assert "attempt    1 of 3" in out


def test_wait_for_a_final_task_returns_at_once(wvsctl: Wvsctl, workspace: str) -> None:
    task = wvsctl.json("task", "list", "--workspace", workspace)["items"][0]["id"]
    assert wvsctl.json("task", "wait", task)["state"] == "succeeded"
    assert wvsctl("task", "wait", task, "--no-wait").code == 2


def test_a_task_that_succeeded_can_be_neither_retried_nor_cancelled(wvsctl: Wvsctl, workspace: str) -> None:
    task = wvsctl.json("task", "list", "--workspace", workspace)["items"][0]["id"]
    assert wvsctl("task", "retry", task).code == 5
    assert wvsctl("task", "cancel", task).code == 5


def test_a_cursor_of_another_list_is_a_usage_error(wvsctl: Wvsctl, workspace: str) -> None:
    wvsctl.ok("snapshot", "create", workspace)
    cursor = wvsctl.json("task", "list", "--workspace", workspace, "--limit", "1")["next_cursor"]
    for arguments in (("workspace", "list"), ("task", "list", "--state", "failed")):
        result = wvsctl(*arguments, "--cursor", cursor)
        assert result.code == 2
        assert "INVALID_CURSOR" in result.err
