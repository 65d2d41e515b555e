"""The present state of a workspace and its history at a version, in one form that tests compare."""

from typing import Any

from tests.integration.http.actors import Client


async def listed(client: Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """A whole list, page by page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await client.read(path, **params, **({} if cursor is None else {"cursor": cursor}))
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def shown_now(client: Client, workspace: str) -> tuple[int, dict[str, Any]]:
    """The version and the state at it, without what is not in the log: progress, and what executors see now."""
    path = f"/v1/workspaces/{workspace}"
    tasks = await listed(client, "/v1/tasks", workspace=workspace)
    events = await client.read(f"{path}/events", limit=1000)
    seen = {
        "workspace": {k: v for k, v in (await client.read(path)).items() if k != "path_replaced_by"},
        "current": await client.read(f"{path}/current"),
        "snapshots": await listed(client, f"{path}/snapshots", include_deleted=True),
        "tasks": [without_present(task) for task in tasks],
    }
    return events["items"][-1]["version"], seen


async def shown_then(client: Client, workspace: str, limit: int = 50, **at: Any) -> dict[str, Any]:
    """The history at a version or time, read page by page."""
    path = f"/v1/workspaces/{workspace}/history"
    first = await client.read(path, limit=limit, **at)
    found: dict[str, Any] = {part: first[part] for part in ("workspace", "current")}
    for part in ("snapshots", "tasks"):
        page, items = first[part], list(first[part]["items"])
        while page["next_cursor"] is not None:
            assert len(page["items"]) == limit
            cursor = {f"{part}_cursor": page["next_cursor"]}
            page = (await client.read(path, limit=limit, at_version=first["version"], **cursor))[part]
            items += page["items"]
        found[part] = items
    found["tasks"] = [without_present(task) for task in found["tasks"]]
    return found


def without_present(task: dict[str, Any]) -> dict[str, Any]:
    return task if task["state"] == "succeeded" else {**task, "progress": None, "waiting_for": None}
