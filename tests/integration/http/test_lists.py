"""Lists over HTTP: every combination of filters, pages without gaps, cursors bound to their list."""

from itertools import product
from typing import Any

import pytest
from tests.integration.http.actors import Client, Executor

from wvs.postgres.pool import Pool

LIMITS = (1, 2, 50)


async def pages(client: Client, path: str, **params: Any) -> list[str]:
    """The ids of a whole list, read page by page."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(100):
        page = await client.read(path, **params, **cursor)
        assert len(page["items"]) <= params.get("limit", 50)
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}
    raise AssertionError("the list has no end")


@pytest.fixture
async def named(client: Client, executor: Executor) -> dict[str, str]:
    """Workspaces: `a` active, `b` failed, `c` initializing, and two disabled ones that were called `d`."""
    ids: dict[str, str] = {}
    for name in ("a", "b"):
        made = await client.ok("POST", "/v1/workspaces", {"name": name})
        await (executor.run() if name == "a" else executor.run_failing())
        ids[name] = made["workspace"]["id"]
    for key in ("d1", "d2"):
        made = await client.ok("POST", "/v1/workspaces", {"name": "d"})
        ids[key] = made["workspace"]["id"]
        await client.ok("POST", f"/v1/workspaces/{ids[key]}/disable")
    made = await client.ok("POST", "/v1/workspaces", {"name": "c"})
    return {**ids, "c": made["workspace"]["id"]}


WORKSPACE_FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["c", "d2", "d1", "b", "a"]),
    ({"state": "active"}, ["a"]),
    ({"state": "init_failed"}, ["b"]),
    ({"state": "disabled"}, ["d2", "d1"]),
    ({"name": "d"}, ["d2", "d1"]),
    ({"name": "a"}, ["a"]),
    ({"name": "zzz"}, []),
    ({"name": "d", "state": "disabled"}, ["d2", "d1"]),
    ({"name": "d", "state": "active"}, []),
    ({"name": "b", "state": "init_failed"}, ["b"]),
]


async def test_workspaces_are_listed_newest_first_by_every_filter(client: Client, named: dict[str, str]) -> None:
    for limit, (params, expected) in product(LIMITS, WORKSPACE_FILTERS):
        found = await pages(client, "/v1/workspaces", **params, limit=limit)
        assert found == [named[key] for key in expected], (params, limit)


async def test_a_name_selects_the_workspace_that_has_it_now_else_the_newest_that_had_it(
    client: Client, named: dict[str, str]
) -> None:
    assert (await client.read("/v1/workspaces/d"))["id"] == named["d2"]
    made = await client.ok("POST", "/v1/workspaces", {"name": "d"})
    assert (await client.read("/v1/workspaces/d"))["id"] == made["workspace"]["id"]
    assert (await client.read(f"/v1/workspaces/{named['d1']}"))["state"] == "disabled"


@pytest.fixture
async def snapshots(client: Client, executor: Executor, active: dict[str, Any]) -> dict[str, str]:
    """Snapshots of `one`: `old` and `new` ready, `gone` dropped, `bad` failed, `coming` creating; and one elsewhere."""
    labels = {
        "old": {"a": "1"},
        "gone": {"a": "1", "b": "2"},
        "new": {"a": "1", "b": "2"},
        "bad": {"b": "2"},
        "coming": {"a": "1", "b": "2", "c": "x=y"},
    }
    ids: dict[str, str] = {}
    for name, wanted in labels.items():
        made = await client.ok("POST", "/v1/workspaces/one/snapshots", {"labels": wanted})
        ids[name] = made["snapshot"]["id"]
        if name == "bad":
            await executor.run_failing()
        elif name != "coming":
            await executor.run()
        if name == "gone":
            await client.ok("DELETE", f"/v1/workspaces/one/snapshots/{ids[name]}")
            await executor.run()
    return ids


SNAPSHOT_FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["coming", "bad", "new", "old"]),
    ({"include_deleted": True}, ["coming", "bad", "new", "gone", "old"]),
    ({"include_deleted": False, "state": "dropped"}, []),
    ({"include_deleted": True, "state": "dropped"}, ["gone"]),
    ({"state": "ready"}, ["new", "old"]),
    ({"state": "ready", "include_deleted": True}, ["new", "old"]),
    ({"state": "lost"}, []),
    ({"label": "a=1"}, ["coming", "new", "old"]),
    ({"label": "c=x=y"}, ["coming"]),
    ({"label": "a=2"}, []),
    ({"label": "a=1", "include_deleted": True}, ["coming", "new", "gone", "old"]),
    ({"label": "a=1", "state": "ready"}, ["new", "old"]),
    ({"label": ["a=1", "b=2"]}, ["coming", "new"]),
    ({"label": ["b=2", "a=1"], "state": "ready"}, ["new"]),
    ({"label": ["a=1", "a=1"], "include_deleted": True}, ["coming", "new", "gone", "old"]),
    ({"label": ["b=2", "a=1"], "state": "dropped", "include_deleted": True}, ["gone"]),
]


async def test_snapshots_are_listed_newest_first_by_every_filter(client: Client, snapshots: dict[str, str]) -> None:
    for limit, (params, expected) in product(LIMITS, SNAPSHOT_FILTERS):
        found = await pages(client, "/v1/workspaces/one/snapshots", **params, limit=limit)
        assert found == [snapshots[key] for key in expected], (params, limit)


@pytest.fixture
async def tasks(client: Client, executor: Executor, active: dict[str, Any]) -> dict[str, str]:
    """Tasks of `one`: its init, a snapshot that succeeded, one that failed, one that runs; and the init of `two`."""
    ids: dict[str, str] = {}
    for name in ("made", "failed", "running"):
        made = await client.ok("POST", "/v1/workspaces/one/snapshots")
        ids[name] = made["task"]["id"]
        if name == "running":
            await executor.start()
        else:
            await (executor.run() if name == "made" else executor.run_failing())
    ids["two"] = (await client.ok("POST", "/v1/workspaces", {"name": "two"}))["task"]["id"]
    [*_, oldest] = (await client.read("/v1/tasks"))["items"]
    return {**ids, "init": oldest["id"]}


TASK_FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["two", "running", "failed", "made", "init"]),
    ({"state": "queued"}, ["two"]),
    ({"state": "succeeded"}, ["made", "init"]),
    ({"kind": "workspace_init"}, ["two", "init"]),
    ({"kind": "snapshot_drop"}, []),
    ({"kind": "snapshot_create", "state": "failed"}, ["failed"]),
    ({"workspace": "one"}, ["running", "failed", "made", "init"]),
    ({"workspace": "one", "state": "running"}, ["running"]),
    ({"workspace": "one", "kind": "snapshot_create"}, ["running", "failed", "made"]),
    ({"workspace": "one", "kind": "snapshot_create", "state": "succeeded"}, ["made"]),
    ({"workspace": "two", "kind": "snapshot_create", "state": "succeeded"}, []),
]


async def test_tasks_are_listed_newest_first_by_every_filter(client: Client, tasks: dict[str, str]) -> None:
    for limit, (params, expected) in product(LIMITS, TASK_FILTERS):
        found = await pages(client, "/v1/tasks", **params, limit=limit)
        assert found == [tasks[key] for key in expected], (params, limit)


async def test_a_cursor_continues_only_the_list_and_the_filters_that_produced_it(
    client: Client, named: dict[str, str]
) -> None:
    cursor = (await client.read("/v1/workspaces", limit=1))["next_cursor"]
    for path, params in (
        ("/v1/workspaces", {"state": "active"}),
        ("/v1/workspaces", {"name": "d"}),
        ("/v1/tasks", {}),
        ("/v1/workspaces/a/snapshots", {}),
        ("/v1/workspaces", {"cursor": cursor[:-1]}),
        ("/v1/workspaces", {"cursor": cursor + "A"}),
        ("/v1/workspaces", {"cursor": "é"}),
        ("/v1/workspaces", {"cursor": ""}),
    ):
        response = await client.get(path, params={"cursor": cursor, **params})
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR"), (path, params)


async def test_a_cursor_of_one_workspace_is_refused_in_another(
    client: Client, executor: Executor, snapshots: dict[str, str]
) -> None:
    cursor = (await client.read("/v1/workspaces/one/snapshots", limit=1))["next_cursor"]
    await client.ok("POST", "/v1/workspaces", {"name": "two"})
    response = await client.get("/v1/workspaces/two/snapshots", params={"cursor": cursor})
    assert response.json()["code"] == "INVALID_CURSOR"
    by_id = await client.read("/v1/workspaces/one")
    again = await client.read(f"/v1/workspaces/{by_id['id']}/snapshots", cursor=cursor)
    assert [item["id"] for item in again["items"]] == [snapshots[key] for key in ("bad", "new", "old")]


async def test_pages_have_no_gaps_while_newer_items_arrive(client: Client, named: dict[str, str]) -> None:
    first = await client.read("/v1/workspaces", limit=2)
    await client.ok("POST", "/v1/workspaces", {"name": "newer"})
    rest = await client.read("/v1/workspaces", cursor=first["next_cursor"])
    assert [item["id"] for item in rest["items"]] == [named[key] for key in ("d1", "b", "a")]


BAD_FILTERS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/workspaces", {"limit": 0}, "limit"),
    ("/v1/workspaces", {"limit": 1001}, "limit"),
    ("/v1/workspaces", {"limit": "many"}, "limit"),
    ("/v1/workspaces", {"state": "sleeping"}, "state"),
    ("/v1/workspaces", {"name": "../etc"}, "name"),
    ("/v1/workspaces", {"name": "x" * 64}, "name"),
    ("/v1/workspaces", {"colour": "red"}, "colour"),
    ("/v1/workspaces", {"cursor": "x" * 1025}, "cursor"),
    ("/v1/workspaces", {"state": ["active", "disabled"]}, "state"),
    ("/v1/workspaces", {"limit": [1, 2]}, "limit"),
    ("/v1/workspaces", {"name": ["a", "b"]}, "name"),
    ("/v1/workspaces", {"name": "One"}, "name"),
    ("/v1/tasks", {"state": "null"}, "state"),
    ("/v1/tasks", {"kind": "NULL"}, "kind"),
    ("/v1/tasks", {"limit": "null"}, "limit"),
    ("/v1/tasks", {"limit": ""}, "limit"),
    ("/v1/tasks", {"state": ""}, "state"),
    ("/v1/events", {"limit": -1}, "limit"),
    ("/v1/events", {"after": "x" * 1025}, "after"),
    ("/v1/events", {"workspace_id": "x"}, "workspace_id"),
    ("/v1/workspaces/one/sessions", {"all": "null"}, "all"),
    ("/v1/workspaces/one/sessions", {"state": "active"}, "state"),
    ("/v1/sessions/sess_01h455vb4pex5vsknk084sn02q/directive", {"wait": 61}, "wait"),
    ("/v1/sessions/sess_01h455vb4pex5vsknk084sn02q/directive", {"wait": -1}, "wait"),
    ("/v1/sessions/sess_01h455vb4pex5vsknk084sn02q/directive", {"after": "first"}, "after"),
    ("/v1/tasks", {"state": "ready"}, "state"),
    ("/v1/tasks", {"kind": "clone"}, "kind"),
    ("/v1/tasks", {"workspace": "x" * 81}, "workspace"),
    ("/v1/workspaces/one/snapshots", {"state": "queued"}, "state"),
    ("/v1/workspaces/one/snapshots", {"label": "x" * 321}, "label"),
    ("/v1/workspaces/one/snapshots", {"label": "novalue"}, "label"),
    ("/v1/workspaces/one/snapshots", {"label": "=value"}, "label"),
    ("/v1/workspaces/one/snapshots", {"label": ["a=1", "-a=1"]}, "label"),
    ("/v1/workspaces/one/snapshots", {"label": [f"a={n}" for n in range(9)]}, "label"),
    ("/v1/workspaces/one/snapshots", {"include_deleted": "perhaps"}, "include_deleted"),
]


async def test_an_invalid_filter_is_refused_by_name(client: Client, active: dict[str, Any]) -> None:
    for path, params, field in BAD_FILTERS:
        response = await client.get(path, params=params)
        problem = response.json()
        assert (response.status_code, problem["code"]) == (400, "INVALID_REQUEST"), (path, params, problem)
        assert [error["field"] for error in problem["errors"]] == [field], (path, params, problem)


async def test_a_workspace_may_be_called_null(client: Client) -> None:
    made = await client.ok("POST", "/v1/workspaces", {"name": "null"})
    assert await pages(client, "/v1/workspaces", name="null", limit=1) == [made["workspace"]["id"]]


async def test_a_list_of_an_unknown_workspace_is_not_an_empty_list(client: Client) -> None:
    for path, params in (("/v1/workspaces/none/snapshots", {}), ("/v1/tasks", {"workspace": "none"})):
        response = await client.get(path, params=params)
        assert (response.status_code, response.json()["code"]) == (404, "WORKSPACE_NOT_FOUND")


async def test_the_longest_page_has_a_thousand(client: Client, pool: Pool) -> None:
    await pool.execute(
        """INSERT INTO wvs.workspaces (id, name, state, labels, epoch, created_at)
        SELECT gen_random_uuid(), 'w' || n, 'active', '{}', 1, now() FROM generate_series(1, 1100) n"""
    )
    page = await client.read("/v1/workspaces", limit=1000)
    assert len(page["items"]) == 1000
    assert len((await client.read("/v1/workspaces"))["items"]) == 50
    assert len(await pages(client, "/v1/workspaces", limit=1000)) == 1100
