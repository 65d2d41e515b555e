"""Two executors on one volume: everything is done once, in order, and no two clones of a workspace overlap."""

import itertools
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
from tests.integration.engines.journals import read_journal
from tests.integration.executor.platform import Platform, eventually
from tests.integration.executor.processes import Executors

from wvs.domain.ids import WORKSPACE, parse_id
from wvs.domain.states import TaskState

WORKSPACES = 8
ROUNDS = 3


def clones_of(journal: Path) -> dict[uuid.UUID, list[tuple[int, int]]]:
    """Begin and end of each workspace's clones; a clone that a kill cut short has no end and is left out."""
    begun: dict[tuple[str, str], int] = {}
    clones: dict[uuid.UUID, list[tuple[int, int]]] = defaultdict(list)
    for mark in read_journal(journal):
        if mark.phase == "begin":
            begun[mark.workspace, mark.target] = mark.at_ns
        else:
            clones[parse_id(WORKSPACE, mark.workspace)].append((begun[mark.workspace, mark.target], mark.at_ns))
    return clones


async def test_two_executors_share_the_work_and_no_clones_of_a_workspace_overlap(
    platform: Platform, executors: Executors
) -> None:
    first, second = executors.start(), executors.start()
    await first.logged("executor_started")
    await second.logged("executor_started")
    workspaces = [await platform.create() for _ in range(WORKSPACES)]
    for workspace_id in workspaces:
        platform.fill(workspace_id, 30)
    asked: dict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    snapshots: dict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    for _, workspace_id in itertools.product(range(ROUNDS), workspaces):
        snapshot_id, task_id = await platform.ask_for_snapshot(workspace_id)
        snapshots[workspace_id].append(snapshot_id)
        asked[workspace_id].append(task_id)
    for workspace_id in workspaces:
        for task_id in asked[workspace_id]:
            assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        assert await platform.set_current(workspace_id, snapshots[workspace_id][0]) is TaskState.SUCCEEDED

    clones = clones_of(executors.journal)
    for workspace_id in workspaces:
        own = sorted(clones[workspace_id])
        assert len(own) == ROUNDS + 1, "each clone was made once"
        assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(own))
        rows = await platform.pool.fetch(
            "SELECT id FROM wvs.snapshots WHERE workspace_id = $1 ORDER BY ready_at", workspace_id
        )
        assert [i for (i,) in rows] == snapshots[workspace_id], "in the order in which they were accepted"
        await platform.until_swept(workspace_id)
    assert first.lines("task_succeeded")
    assert second.lines("task_succeeded")
    every = [*first.lines(), *second.lines()]
    assert [line for line in every if line["event"] in ("lane_reaped", "lease_lost", "claim_was_stale")] == []


async def test_one_grep_for_a_request_finds_its_task_in_the_executors_log(
    platform: Platform, executors: Executors
) -> None:
    process = executors.start(failpoints="create.cloned=error@1")
    workspace_id = await platform.create()
    trace_id = uuid.uuid4().hex
    task_id = await platform.traced_snapshot(workspace_id, "req-42", f"00-{trace_id}-00f067aa0ba902b7-01", "key-7")
    assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED

    async def logged() -> list[dict[str, Any]]:
        lines = [msgspec.json.decode(li) for li in process.log.read_bytes().splitlines() if b'"req-42"' in li]
        return lines if lines[-1]["event"] == "task_succeeded" else []

    lines = await eventually(logged)
    assert [line["event"] for line in lines] == [
        "task_started",
        "task_attempt_ended",
        "task_started",
        "task_succeeded",
    ]
    for line in lines:
        assert line["trace_id"] == trace_id
        assert line["idempotency_key"] == "key-7"
        assert line["executor_id"]
        assert line["workspace_id"].startswith("ws_")
        assert line["task_id"].startswith("task_")
    assert [line["attempt"] for line in lines] == [1, 1, 2, 2]
    assert lines[0]["fence"] < lines[2]["fence"]
    events = "SELECT count(*) FROM wvs.events WHERE request_id = 'req-42' AND originator_id = $1"
    assert await platform.pool.fetchval(events, workspace_id) == 5, "asked, started, failed, started, created"
