from collections.abc import Callable
from pathlib import Path

from tests.integration.wvsctl.consoles import Wvsctl


def test_create_waits_and_shows_the_active_workspace(wvsctl: Wvsctl, name: Callable[[], str]) -> None:
    given = name()
    result = wvsctl.ok("workspace", "create", given, "--label", "team=core", "--label", "run=7")
    lines = [line.split(maxsplit=1) for line in result.out.splitlines()]
    values = {line[0]: line[1] for line in lines}
    assert values["name"] == given
    assert values["state"] == "active"
    assert sorted(values["labels"].split()) == ["run=7", "team=core"]
    assert Path(values["path"]).is_dir()
    assert result.err.startswith("idempotency key: ")
    assert "workspace_init succeeded" in result.err


def test_create_prints_json_with_both_parts_final(wvsctl: Wvsctl, name: Callable[[], str]) -> None:
    document = wvsctl.json("workspace", "create", name())
    assert list(document) == ["workspace", "task"]
    assert document["workspace"]["state"] == "active"
    assert document["task"]["state"] == "succeeded"


def test_get_prints_the_apis_json_byte_for_byte(wvsctl: Wvsctl, workspace: str) -> None:
    result = wvsctl.ok("workspace", "get", workspace, "--json")
    assert result.out.encode() == wvsctl.raw(f"/v1/workspaces/{workspace}") + b"\n"
    assert wvsctl.ok("--json", "workspace", "get", result.document["id"]).out == result.out


def test_list_filters_and_aligns_its_columns(wvsctl: Wvsctl, workspace: str) -> None:
    result = wvsctl.ok("workspace", "list", "--name", workspace, "--state", "active")
    header, row = result.out.splitlines()
    assert header.split() == ["NAME", "ID", "STATE", "CURRENT", "EPOCH", "CREATED", "LABELS"]
    assert row.split()[0] == workspace
    assert header.index("STATE") == row.index("active")
    assert not wvsctl.json("workspace", "list", "--name", workspace, "--state", "init_failed")["items"]


def test_list_prints_every_page_or_the_cursor_of_the_next(wvsctl: Wvsctl, name: Callable[[], str]) -> None:
    made = [name() for _ in range(3)]
    for each in made:
        wvsctl.ok("workspace", "create", each)
    page = wvsctl("workspace", "list", "--limit", "1", "--json")
    cursor = page.document["next_cursor"]
    assert page.out.encode() == wvsctl.raw("/v1/workspaces?limit=1") + b"\n"
    assert f"use --all, or --cursor {cursor}" in page.err
    second = wvsctl.json("workspace", "list", "--limit", "1", "--cursor", cursor)
    assert second["items"][0]["name"] == made[1]
    every = wvsctl.ok("workspace", "list", "--all", "--limit", "2", "--json")
    lines = every.out.splitlines()
    assert [f'"name":"{each}"' in line for line, each in zip(lines, reversed(made), strict=False)] == [True] * 3
    table = wvsctl.ok("workspace", "list", "--all", "--limit", "2").out.splitlines()
    assert [line.split()[0] for line in table[1:4]] == made[::-1]
    assert len(table) == len(lines) + 1


def test_path_prints_only_a_directory(wvsctl: Wvsctl, workspace: str) -> None:
    result = wvsctl.ok("workspace", "path", workspace)
    assert Path(result.out.removesuffix("\n")).is_dir()
    assert not result.err


def test_a_name_in_use_is_a_conflict(wvsctl: Wvsctl, workspace: str) -> None:
    result = wvsctl("workspace", "create", workspace, "--json")
    assert result.code == 5
    assert result.document["code"] == "WORKSPACE_NAME_TAKEN"
    assert "[WORKSPACE_NAME_TAKEN]" in result.err
    assert result.document["request_id"] in result.err


def test_an_invalid_name_is_a_usage_error(wvsctl: Wvsctl) -> None:
    result = wvsctl("workspace", "create", "No_Such-Name")
    assert result.code == 2
    assert "name" in result.err


def test_an_unknown_workspace_is_not_found(wvsctl: Wvsctl) -> None:
    for command in (("workspace", "get"), ("workspace", "path"), ("current", "get"), ("snapshot", "list")):
        result = wvsctl(*command, "nobody")
        assert result.code == 3, result
        assert not result.out


def test_retry_init_of_an_active_workspace_is_a_conflict(wvsctl: Wvsctl, workspace: str) -> None:
    result = wvsctl("workspace", "retry-init", workspace)
    assert result.code == 5
    assert "WORKSPACE_NOT_INIT_FAILED" in result.err


def test_disable_needs_yes_without_a_terminal_and_is_final(wvsctl: Wvsctl, workspace: str) -> None:
    refused = wvsctl("workspace", "disable", workspace)
    assert refused.code == 2
    assert "--yes" in refused.err
    assert wvsctl.json("workspace", "get", workspace)["state"] == "active"
    identity = wvsctl.json("workspace", "get", workspace)["id"]
    assert wvsctl.json("workspace", "disable", workspace, "--yes", "--reason", "over")["state"] == "disabled"
    assert "disabled" in wvsctl.ok("workspace", "disable", identity, "-y").out
    assert wvsctl("snapshot", "create", identity).code == 5


def test_an_actor_is_recorded(wvsctl: Wvsctl, name: Callable[[], str]) -> None:
    given = name()
    wvsctl.ok("workspace", "create", given, "--actor", "ci/build-17")
    assert b'"actor":"ci/build-17"' in wvsctl.raw(f"/v1/workspaces/{given}/events")
    assert wvsctl("workspace", "get", given, "--actor", "!").code == 2
