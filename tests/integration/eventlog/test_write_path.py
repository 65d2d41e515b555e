"""The write path on a real Postgres: one transaction for everything, conflicts, keys, fences, unknown outcomes."""

import asyncio
import datetime as dt
import uuid
from uuid import UUID

import msgspec
import pytest

from wvs.application.write_path import Committed, Origin, Reply, WritePath
from wvs.domain.commands import CreateSnapshot, CreateWorkspace, FinishInit, StartTask
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import Event
from wvs.domain.states import TaskKind, WorkspaceState
from wvs.domain.values import TaskError
from wvs.domain.workspace import Workspace
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.recorder import Hold, IdempotencyKey, Show
from wvs.postgres.pool import Pool, connect
from wvs.queue.lanes import Claim, LaneCursor, claim, release
from wvs.telemetry.metrics import Metrics

ORIGIN = Origin(actor="tester", request_id="req-1")
LOST = TaskError(ErrorCode.LEASE_LOST, "gone", retryable=True)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def write_path(pool: Pool) -> WritePath:
    return WritePath(pool, EventMapper(), Metrics())


async def created(path: WritePath, name: str = "one", key: IdempotencyKey | None = None) -> tuple[UUID, Committed]:
    workspace_id, task_id = uuid.uuid4(), uuid.uuid4()

    def describe(_events: list[Event], workspace: Workspace) -> tuple[int, Show]:
        return 202, Show(workspace=workspace.id, task=task_id)

    command = CreateWorkspace(name, {"team": "a"}, task_id)
    reply = Reply(describe, key)
    return workspace_id, await path.execute(workspace_id, command, at=now(), origin=ORIGIN, reply=reply)


async def active(path: WritePath, database_url: str) -> UUID:
    workspace_id, _ = await created(path)
    connection = await connect(database_url, application_name="test")
    held = await claim(connection, "executor-1", 30, LaneCursor())
    assert held is not None
    assert held.workspace_id == workspace_id
    hold = Hold(held.task_id, held.fence)
    start = StartTask(held.task_id, held.fence, "executor-1", f"t.{held.fence}", now(), LOST)
    await path.execute(workspace_id, start, at=now(), origin=ORIGIN, hold=hold)
    finish = FinishInit(held.task_id, held.fence, f"t.{held.fence}", "copy")
    await path.execute(workspace_id, finish, at=now(), origin=ORIGIN, hold=hold)
    await release(connection, held)
    await connection.close()
    return workspace_id


async def test_a_command_writes_events_rows_queue_and_answer_together(pool: Pool) -> None:
    workspace_id, committed = await created(write_path(pool))

    answer = msgspec.json.decode(committed.answer or b"")
    assert answer["workspace"]["state"] == "initializing"
    assert answer["workspace"]["labels"] == {"team": "a"}
    assert answer["task"]["kind"] == "workspace_init"
    assert await pool.fetchval("SELECT count(*) FROM wvs.events WHERE originator_id = $1", workspace_id) == 1
    queued = await pool.fetchrow("SELECT kind, state, seq FROM wvs.queue WHERE workspace_id = $1", workspace_id)
    assert dict(queued or {}) == {"kind": "workspace_init", "state": "queued", "seq": 1}


async def test_a_key_repeats_its_answer_and_refuses_another_request(pool: Pool) -> None:
    path = write_path(pool)
    key = IdempotencyKey("tester create", "k1", b"f" * 32)
    _, first = await created(path, key=key)
    _, again = await created(path, key=key)

    assert again.replayed
    assert again.answer == first.answer
    assert again.status == 202
    assert await pool.fetchval("SELECT count(*) FROM wvs.streams") == 1
    with pytest.raises(Refused) as refused:
        await created(path, key=IdempotencyKey("tester create", "k1", b"g" * 32))
    assert refused.value.code is ErrorCode.IDEMPOTENCY_KEY_REUSED


async def test_a_name_in_use_is_refused_and_nothing_is_written(pool: Pool) -> None:
    path = write_path(pool)
    await created(path)
    with pytest.raises(Refused) as refused:
        await created(path)
    assert refused.value.code is ErrorCode.WORKSPACE_NAME_TAKEN
    assert await pool.fetchval("SELECT count(*) FROM wvs.events") == 1


async def test_a_task_goes_from_claim_to_active_workspace(pool: Pool, database_url: str) -> None:
    path = write_path(pool)
    workspace_id = await active(path, database_url)

    workspace = await path.load(workspace_id)
    assert workspace is not None
    assert workspace.state is WorkspaceState.ACTIVE
    row = await pool.fetchrow("SELECT state, live_tree, epoch FROM wvs.workspaces WHERE id = $1", workspace_id)
    assert dict(row or {}) == {"state": "active", "live_tree": "t.1", "epoch": 1}
    assert await pool.fetchval("SELECT count(*) FROM wvs.queue") == 0
    assert await pool.fetchval("SELECT state FROM wvs.trees") == "live"


async def test_a_stale_fence_changes_nothing(pool: Pool, database_url: str) -> None:
    path = write_path(pool)
    workspace_id, _ = await created(path)
    first = await connect(database_url, application_name="first")
    stale = await claim(first, "executor-1", 30, LaneCursor())
    assert stale is not None
    await first.close()
    await pool.execute("UPDATE wvs.lanes SET ready_at = now()")
    second = await connect(database_url, application_name="second")
    held = await _claim_soon(second)
    assert held.took_over
    assert held.fence == stale.fence + 1
    assert held.kind is TaskKind.WORKSPACE_INIT

    start = StartTask(stale.task_id, stale.fence, "executor-1", "t.1", now(), LOST)
    with pytest.raises(Refused) as refused:
        await path.execute(workspace_id, start, at=now(), origin=ORIGIN, hold=Hold(stale.task_id, stale.fence))
    assert refused.value.code is ErrorCode.LEASE_LOST
    assert await pool.fetchval("SELECT count(*) FROM wvs.events") == 1
    await second.close()


async def _claim_soon(connection: object) -> Claim:
    for _ in range(100):
        held = await claim(connection, "executor-2", 30, LaneCursor())  # type: ignore[arg-type]
        if held is not None:
            return held
        await asyncio.sleep(0.02)
    raise AssertionError("nothing to claim within 2 s")


async def test_two_processes_that_decide_on_one_version_both_commit(pool: Pool, database_url: str) -> None:
    one, two = write_path(pool), write_path(pool)
    workspace_id = await active(one, database_url)
    await two.load(workspace_id)

    async def snapshot(path: WritePath, n: int) -> None:
        command = CreateSnapshot(uuid.uuid4(), uuid.uuid4(), f"n{n}", {})
        await path.execute(workspace_id, command, at=now(), origin=ORIGIN)

    await asyncio.gather(*(snapshot(path, n) for n in range(20) for path in (one, two)))
    versions = await pool.fetch("SELECT originator_version FROM wvs.events ORDER BY notification_id")
    assert [v for (v,) in versions] == list(range(1, 44))
    assert await pool.fetchval("SELECT count(*) FROM wvs.snapshots") == 40
