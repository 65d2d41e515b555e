import contextlib
import shutil
import socket
from pathlib import Path

from tests.integration.wvsctl.consoles import Wvsctl


def test_create_explains_the_proof(wvsctl: Wvsctl, workspace: str, live: Path) -> None:
    (live / "a").write_bytes(b"x" * 2048)
    out = wvsctl.ok("snapshot", "create", workspace, "--message", "before lunch").out
    assert "message    before lunch" in out
    assert "content    1 file, 2.0 KiB" in out
    assert "proof      freeze 1: no agent was registered, so the stamps alone are the proof" in out
    assert "no process wrote during the clone: the stamps before and after are equal" in out
    assert "engine copy; frozen at 20" in out


def test_what_a_snapshot_could_not_keep_is_shown_when_it_is_made_and_afterwards(
    wvsctl: Wvsctl, workspace: str, live: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(live):
        bound.bind("agent.sock")
    assert "notes      socket: 1, first agent.sock" in wvsctl.ok("snapshot", "create", workspace).out
    made = wvsctl.json("snapshot", "list", workspace)["items"][0]
    assert made["notes"] == ["socket: 1, first agent.sock"]
    assert "notes      socket: 1, first agent.sock" in wvsctl.ok("snapshot", "get", workspace, made["id"]).out
    (heading, row) = wvsctl.ok("snapshot", "list", workspace).out.splitlines()
    assert row[heading.index("NOTES") :].split()[0] == "1"
    (live / "agent.sock").unlink()
    assert wvsctl.json("snapshot", "create", workspace)["snapshot"]["notes"] == []


def test_get_prints_the_apis_json_byte_for_byte(wvsctl: Wvsctl, workspace: str, snapshot: str) -> None:
    result = wvsctl.ok("snapshot", "get", workspace, snapshot, "--json")
    assert result.out.encode() == wvsctl.raw(f"/v1/workspaces/{workspace}/snapshots/{snapshot}") + b"\n"


def test_list_filters_by_label_and_state(wvsctl: Wvsctl, workspace: str, snapshot: str) -> None:
    other = wvsctl.json("snapshot", "create", workspace, "--label", "step=2")["snapshot"]["id"]
    rows = wvsctl.ok("snapshot", "list", workspace).out.splitlines()
    assert [row.split()[0] for row in rows] == ["ID", other, snapshot]
    only = wvsctl.json("snapshot", "list", workspace, "--label", "step=1", "--state", "ready")
    assert [item["id"] for item in only["items"]] == [snapshot]


def test_an_unknown_snapshot_is_not_found(wvsctl: Wvsctl, workspace: str, snapshot: str) -> None:
    assert wvsctl("snapshot", "get", workspace, "snap_00000000000000000000000000").code == 3
    assert wvsctl("snapshot", "drop", workspace, "nonsense", "--yes").code == 3
    assert wvsctl("snapshot", "get", workspace, f"../{snapshot}").code == 2


def test_drop_needs_yes_without_a_terminal(wvsctl: Wvsctl, workspace: str, snapshot: str) -> None:
    result = wvsctl("snapshot", "drop", workspace, snapshot)
    assert result.code == 2
    assert "--yes" in result.err
    assert wvsctl.json("snapshot", "get", workspace, snapshot)["state"] == "ready"


def test_a_dropped_snapshot_has_no_directory_and_can_still_be_shown(
    wvsctl: Wvsctl, workspace: str, live: Path, snapshot: str
) -> None:
    trees = live.parents[1] / "trees"
    before = set(trees.iterdir())
    result = wvsctl.ok("snapshot", "drop", workspace, snapshot, "--yes")
    assert "state      dropped" in result.out
    assert len(before - set(trees.iterdir())) == 1
    assert wvsctl.json("snapshot", "get", workspace, snapshot)["deleted_at"]
    assert not wvsctl.json("snapshot", "list", workspace)["items"]
    assert wvsctl.json("snapshot", "list", workspace, "--include-deleted")["items"][0]["id"] == snapshot


def test_a_snapshot_in_use_is_not_dropped_and_every_blocker_is_named(
    wvsctl: Wvsctl, workspace: str, snapshot: str
) -> None:
    wvsctl.ok("current", "set", workspace, snapshot)
    result = wvsctl("snapshot", "drop", workspace, snapshot, "--yes")
    assert result.code == 5
    assert not result.out
    assert "blocked: it is the current snapshot" in result.err
    assert wvsctl("snapshot", "drop", workspace, snapshot, "--yes", "--json").document["blockers"] == [
        {"kind": "current"}
    ]


def test_a_failed_task_exits_6_with_its_error_and_the_next_steps(wvsctl: Wvsctl, workspace: str, live: Path) -> None:
    shutil.rmtree(live.resolve())
    result = wvsctl("snapshot", "create", workspace, "--json")
    assert result.code == 6
    assert result.document["task"]["state"] == "failed"
    assert result.document["snapshot"]["state"] == "failed"
    task, code = result.document["task"]["id"], result.document["task"]["error"]["code"]
    assert f"[{code}]" in result.err
    assert f"wvsctl task retry {task}" in result.err
    assert wvsctl("task", "wait", task).code == 6
    again = wvsctl("task", "retry", task)
    assert again.code == 6
    given_up = wvsctl("task", "cancel", task, "--json")
    assert (given_up.code, given_up.document["state"]) == (0, "cancelled")
    assert wvsctl("task", "retry", task).code == 5


def test_an_invalid_label_is_a_usage_error_and_nothing_is_sent(wvsctl: Wvsctl, workspace: str) -> None:
    for labels in (["--label", "x"], ["--label", "=x"], ["--label", "a=1", "--label", "a=2"]):
        result = wvsctl("snapshot", "create", workspace, *labels)
        assert result.code == 2, result
        assert "idempotency" not in result.err
