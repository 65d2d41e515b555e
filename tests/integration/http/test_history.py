"""History: at every version, it shows what the API showed then."""

import asyncio
import datetime as dt
from typing import Any

import pytest
from tests.integration.http.actors import NO_SPACE, Client, Executor
from tests.integration.http.past import shown_now, shown_then

from wvs.domain.commands import EvictSession, ReportFound, ReportLost
from wvs.domain.ids import SNAPSHOT, parse_id
from wvs.eventlog.codec import TOPICS
from wvs.http.service import new_id
from wvs.postgres.pool import Pool
from wvs.queue.lanes import release

ONE = "/v1/workspaces/one"


class Witness:
    """Records the shown state after every step, by version."""

    def __init__(self, client: Client, executor: Executor, pool: Pool, workspace: str) -> None:
        self.client = client
        self.executor = executor
        self.pool = pool
        self.workspace = workspace
        self.seen: dict[int, dict[str, Any]] = {}

    async def look(self) -> None:
        version, seen = await shown_now(self.client, self.workspace)
        self.seen[version] = seen

    async def run(self) -> None:
        """The next task, seen while it runs and after it."""
        held = await self.executor.start()
        await self.look()
        await self.executor.finish(held)
        await self.look()

    async def fail(self) -> None:
        await self.executor.run_failing()
        await self.look()

    async def asked(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self.client.ok(method, path, body)
        await self.look()
        return answer

    async def due(self) -> None:
        """What waits for its retry need not wait."""
        await self.pool.execute("UPDATE wvs.queue SET run_at = now()")
        await self.pool.execute("UPDATE wvs.lanes SET ready_at = now() WHERE ready_at IS NOT NULL")


@pytest.fixture
async def lived(client: Client, executor: Executor, pool: Pool) -> Witness:
    """A workspace with events of all types."""
    made = await client.ok("POST", "/v1/workspaces", {"name": "one", "labels": {"team": "a"}})
    witness = Witness(client, executor, pool, made["workspace"]["id"])
    await witness.look()
    await witness.fail()
    await witness.asked("POST", f"{ONE}/retry-init")
    await witness.fail()
    await witness.asked("POST", f"/v1/tasks/{made['task']['id']}/cancel")
    await witness.asked("POST", f"{ONE}/retry-init")
    await witness.run()
    await _snapshots(witness)
    await witness.executor.command(witness.workspace, EvictSession(new_id(), "silent"))
    await witness.look()
    await witness.asked("POST", f"{ONE}/snapshots")
    await witness.asked("POST", f"{ONE}/disable", {"reason": "done"})
    return witness


async def _snapshots(witness: Witness) -> None:
    first = (await witness.asked("POST", f"{ONE}/snapshots", {"message": "first"}))["snapshot"]["id"]
    await witness.run()
    second = (await witness.asked("POST", f"{ONE}/snapshots", {"labels": {"run": "2"}}))["snapshot"]["id"]
    await witness.executor.run_failing(NO_SPACE)  # is tried again by itself
    await witness.look()
    await witness.due()
    await witness.fail()
    tasks = (await witness.client.read("/v1/tasks", workspace="one"))["items"]
    await witness.asked("POST", f"/v1/tasks/{tasks[0]['id']}/retry")
    await witness.run()
    for target in (first, second):
        await witness.asked("PUT", f"{ONE}/current", {"snapshot_id": target})
        await witness.run()
    await witness.asked("PUT", f"{ONE}/current", {"snapshot_id": second})  # a no-op
    failing = (await witness.asked("PUT", f"{ONE}/current", {"snapshot_id": first}))["task"]["id"]
    await witness.fail()
    await witness.asked("POST", f"/v1/tasks/{failing}/cancel")
    await _queued_noop(witness, first, second)
    third = (await witness.asked("POST", f"{ONE}/snapshots"))["snapshot"]["id"]
    await witness.run()
    dropping = (await witness.asked("DELETE", f"{ONE}/snapshots/{first}"))["task"]["id"]
    await witness.fail()
    await witness.asked("POST", f"/v1/tasks/{dropping}/retry")
    await witness.run()
    await witness.executor.command(witness.workspace, ReportLost(parse_id(SNAPSHOT, third), "not there"))
    await witness.executor.command(witness.workspace, ReportFound(parse_id(SNAPSHOT, third), "there again"))
    await witness.executor.command(witness.workspace, ReportLost(parse_id(SNAPSHOT, third), "not there"))
    await witness.look()
    await witness.asked("POST", f"{ONE}/snapshots")
    held = await witness.executor.start()
    await witness.asked("POST", f"/v1/tasks/{(await _newest_task(witness))}/cancel")
    await witness.executor.finish(held)
    await witness.look()


async def _queued_noop(witness: Witness, first: str, second: str) -> None:
    """Back and forth while nothing runs: the second of two moves to the same snapshot finds it current."""
    for _ in range(2):
        await witness.asked("PUT", f"{ONE}/current", {"snapshot_id": first})
    await witness.run()
    await release(witness.executor._connection, await witness.executor.start())
    await witness.look()
    await witness.asked("PUT", f"{ONE}/current", {"snapshot_id": second})
    await witness.run()


async def _newest_task(witness: Witness) -> str:
    return (await witness.client.read("/v1/tasks", workspace="one"))["items"][0]["id"]


async def test_history_shows_each_version_as_the_api_showed_it_then(lived: Witness) -> None:
    assert len(lived.seen) > 40
    for version, seen in lived.seen.items():
        assert await shown_then(lived.client, "one", at_version=version) == seen, version


async def test_history_is_read_page_by_page_at_one_version(lived: Witness) -> None:
    version = max(lived.seen)
    for limit in (1, 2, 3):
        assert await shown_then(lived.client, "one", limit, at_version=version) == lived.seen[version]


async def test_a_time_selects_the_last_version_before_it(lived: Witness) -> None:
    events = (await lived.client.read(f"{ONE}/events", limit=1000))["items"]
    times = [dt.datetime.fromisoformat(event["occurred_at"]) for event in events]
    for index in range(0, len(events), 7):
        answer = await lived.client.read(f"{ONE}/history", at_time=times[index].isoformat())
        last = max(number for number, time in enumerate(times) if time <= times[index])
        assert answer["version"] == events[last]["version"]
        assert answer["position"] == events[last]["position"]
        assert answer["occurred_at"] == events[last]["occurred_at"]
        assert answer["hash"] == events[last]["hash"]
        assert answer["latest_version"] == len(events)


async def test_the_compared_history_contains_every_type_of_event(lived: Witness) -> None:
    events = (await lived.client.read(f"{ONE}/events", limit=1000))["items"]
    missing = set(TOPICS.values()) - {event["type"] for event in events}
    assert not missing


async def test_an_invalid_request_for_history_is_refused_by_name(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "at_version", "either"),
        ({"at_version": 1, "at_time": active["created_at"]}, "at_version", "not both"),
        ({"at_version": 0}, "at_version", "1"),
        ({"at_version": -3}, "at_version", "1"),
        ({"at_version": 2**63}, "at_version", ""),
        ({"at_version": "two"}, "at_version", ""),
        ({"at_time": "0001-01-01T00:00:00+14:00"}, "at_time", "must be a time"),
        ({"at_time": "2026-01-01T00:00:00"}, "at_time", "offset"),
        ({"at_time": "yesterday"}, "at_time", "offset"),
        ({"at_time": "x" * 41}, "at_time", ""),
        ({"at_version": 1, "limit": 0}, "limit", ""),
        ({"at_version": 1, "when": 0}, "when", ""),
    ]
    for params, field, text in cases:
        response = await client.get(f"{ONE}/history", params=params)
        problem = response.json()
        assert (response.status_code, problem["code"]) == (400, "INVALID_REQUEST"), (params, problem)
        assert [error["field"] for error in problem["errors"]] == [field], (params, problem)
        assert text in problem["detail"]
        assert problem["hint"]
    response = await client.get("/v1/workspaces/none/history", params={"at_version": 1})
    assert (response.status_code, response.json()["code"]) == (404, "WORKSPACE_NOT_FOUND")


async def test_a_version_or_time_outside_the_life_of_a_workspace_is_not_found(
    client: Client, executor: Executor, active: dict[str, Any]
) -> None:
    created = dt.datetime.fromisoformat(active["created_at"])
    later = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"at_version": 4}, "has not reached version 4"),
        ({"at_time": (created - dt.timedelta(seconds=1)).isoformat()}, "did not exist"),
        ({"at_time": later}, "is in the future"),
    ]
    for params, text in cases:
        response = await client.get(f"{ONE}/history", params=params)
        problem = response.json()
        assert (response.status_code, problem["code"]) == (404, "VERSION_NOT_FOUND"), (params, problem)
        assert text in problem["detail"]
        assert problem["hint"]


async def test_a_cursor_of_history_continues_only_at_its_own_version(lived: Witness) -> None:
    version = max(lived.seen)
    answer = await lived.client.read(f"{ONE}/history", at_version=version, limit=1)
    cursor = answer["snapshots"]["next_cursor"]
    for params in (
        {"at_version": version - 1, "snapshots_cursor": cursor},
        {"at_version": version, "tasks_cursor": cursor},
        {"at_version": version, "snapshots_cursor": cursor[:-1]},
    ):
        response = await lived.client.get(f"{ONE}/history", params=params)
        assert (response.status_code, response.json()["code"]) == (400, "INVALID_CURSOR"), params


async def test_history_does_not_wait_for_writers(lived: Witness, pool: Pool) -> None:
    """The read takes no lock that a command holds."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM wvs.streams FOR UPDATE")
        async with asyncio.timeout(30):
            await lived.client.read(f"{ONE}/history", at_version=3)
