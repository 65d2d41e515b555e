"""One decision takes over the task of a dead holder, and the new holder keeps the lane that it claimed."""

import asyncio
import datetime as dt
import uuid

from wvs.application.write_path import Origin, WritePath
from wvs.domain.commands import CreateWorkspace, FinishInit, StartTask
from wvs.domain.errors import ErrorCode
from wvs.domain.events import TaskAttemptFailed, TaskStarted
from wvs.domain.states import WorkspaceState
from wvs.domain.values import TaskError
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.recorder import Hold
from wvs.postgres.pool import Connection, Pool, connect
from wvs.queue.lanes import Claim, LaneCursor, Order, claim, reap, renew
from wvs.telemetry.metrics import Metrics

ORIGIN = Origin(actor="tester", request_id="req-1")
GONE = TaskError(ErrorCode.LEASE_LOST, "gone", retryable=True)


async def test_a_takeover_keeps_its_claim_and_ends_the_task(pool: Pool, database_url: str) -> None:
    path = WritePath(pool, EventMapper(), Metrics())
    workspace_id = uuid.uuid4()
    await path.execute(workspace_id, CreateWorkspace("one", {}, uuid.uuid4()), at=_now(), origin=ORIGIN)
    first = await connect(database_url, application_name="first")
    await path.execute(workspace_id, _start(await _claimed(first)), at=_now(), origin=ORIGIN)
    await first.close()

    second = await connect(database_url, application_name="second")
    held = await _claimed(second)
    hold = Hold(held.task_id, held.fence)
    taken = await path.execute(workspace_id, _start(held), at=_now(), origin=ORIGIN, hold=hold)

    assert held.took_over
    assert [type(event) for event in taken.events] == [TaskAttemptFailed, TaskStarted]
    assert await renew(second, held, 30) is Order.GO_ON
    third = await connect(database_url, application_name="third")
    assert await claim(third, "executor-3", 30, LaneCursor()) is None
    finish = FinishInit(held.task_id, held.fence, "t.2", "copy")
    done = await path.execute(workspace_id, finish, at=_now(), origin=ORIGIN, hold=hold)
    assert done.workspace is not None
    assert done.workspace.state is WorkspaceState.ACTIVE
    assert await pool.fetchval("SELECT count(*) FROM wvs.queue") == 0
    await second.close()
    await third.close()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _start(held: Claim) -> StartTask:
    return StartTask(held.task_id, held.fence, "executor", f"t.{held.fence}", _now(), GONE)


async def _claimed(connection: Connection) -> Claim:
    for _ in range(200):
        await reap(connection)
        held = await claim(connection, "executor", 30, LaneCursor())
        if held is not None:
            return held
        await asyncio.sleep(0.02)
    raise AssertionError("nothing to claim within 4 s")
