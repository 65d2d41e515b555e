import contextlib
import socket
from pathlib import Path

from tests.integration.wvsctl.consoles import Wvsctl


def test_set_restores_the_content_and_advances_epoch_and_etag(
    wvsctl: Wvsctl, workspace: str, live: Path, snapshot: str
) -> None:
    (live / "a").write_text("spoiled")
    (live / "b").write_text("new")
    before = wvsctl.json("current", "get", workspace)
    assert before["snapshot_id"] is None
    result = wvsctl.ok("current", "set", workspace, snapshot)
    assert f"current  {snapshot}" in result.out
    assert [entry.name for entry in live.iterdir()] == ["a"]
    assert (live / "a").read_text() == "first"
    shown = wvsctl.ok("current", "get", workspace).out
    assert f'etag     "{before["epoch"] + 1}"' in shown


def test_set_prints_json_with_both_parts_final(wvsctl: Wvsctl, workspace: str, snapshot: str) -> None:
    document = wvsctl.json("current", "set", workspace, snapshot)
    assert document["current"]["snapshot_id"] == snapshot
    assert document["task"]["state"] == "succeeded"
    assert not document["task"]["noop"]


def test_set_to_the_current_snapshot_does_nothing_and_reports_it(
    wvsctl: Wvsctl, workspace: str, live: Path, snapshot: str
) -> None:
    wvsctl.ok("current", "set", workspace, snapshot)
    (live / "kept").touch()
    result = wvsctl.ok("current", "set", workspace, snapshot)
    assert "nothing to do" in result.err
    assert (live / "kept").exists()
    assert wvsctl.json("current", "set", workspace, snapshot)["task"]["noop"]


def test_reset_needs_yes_without_a_terminal_and_replaces_the_tree(
    wvsctl: Wvsctl, workspace: str, live: Path, snapshot: str
) -> None:
    wvsctl.ok("current", "set", workspace, snapshot)
    (live / "spoiled").touch()
    refused = wvsctl("current", "set", workspace, snapshot, "--reset")
    assert refused.code == 2
    assert (live / "spoiled").exists()
    wvsctl.ok("current", "set", workspace, snapshot, "--reset", "--yes")
    assert not (live / "spoiled").exists()


def test_the_log_shows_what_was_moved_from_the_path_and_what_a_clone_could_not_keep(
    wvsctl: Wvsctl, workspace: str
) -> None:
    path = Path(wvsctl.ok("workspace", "path", workspace).out.strip())
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path):
        listener.bind("s")
    snapshot = wvsctl.json("snapshot", "create", workspace)["snapshot"]["id"]
    path = path.parents[1] / "current"
    path.unlink()
    path.mkdir()
    wvsctl.ok("current", "set", workspace, snapshot)
    log = wvsctl.ok("audit", "log", workspace).out
    assert "note: socket: 1, first s)" in log
    assert "note: the workspace's path was a directory, moved to " in log


def test_if_match_accepts_only_the_etag_that_get_shows(wvsctl: Wvsctl, workspace: str, snapshot: str) -> None:
    etag = wvsctl.ok("current", "get", workspace).out.split("etag")[1].strip()
    stale = wvsctl("current", "set", workspace, snapshot, "--if-match", "99")
    assert stale.code == 5
    assert "CURRENT_CHANGED" in stale.err
    wvsctl.ok("current", "set", workspace, snapshot, "--if-match", etag.strip('"'))
    assert wvsctl("current", "set", workspace, snapshot, "--reset", "--yes", "--if-match", etag).code == 5


def test_a_snapshot_of_another_workspace_is_not_found(wvsctl: Wvsctl, snapshot: str) -> None:
    wvsctl.ok("workspace", "create", "elsewhere")
    assert wvsctl("current", "set", "elsewhere", snapshot).code == 3
