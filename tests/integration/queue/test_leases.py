"""Leases: the answers to renewals, and how a holder that is gone, hangs, or keeps its lock loses its lane."""

import asyncio
from datetime import datetime

import asyncpg
import pytest
from tests.integration.queue.conftest import Holder, Lanes, NewHolder

from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.states import TaskKind
from wvs.queue.lanes import Order, TaskProgress, park, reap, renew

HALF = TaskProgress("cloning", 1, 2, 10, 20)


async def closed(holder: Holder) -> bool:
    try:
        await holder.connection.fetchval("SELECT 1")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return True
    return False


async def test_the_lane_of_a_holder_that_is_gone_is_freed_at_once(lanes: Lanes, new_holder: NewHolder) -> None:
    workspace_id, (task_id,) = await lanes.workspace(queued=1)
    first, second = await new_holder("one"), await new_holder("two")
    held = await first.claimed()
    await first.start(held)
    assert await reap(second.connection) == []
    first.connection.terminate()
    for _ in range(100):
        if reaped := await reap(second.connection):
            break
        await asyncio.sleep(0.01)
    assert [(r.task_id, r.fence, r.executor, r.reason) for r in reaped] == [(task_id, held.fence, "one", "holder_gone")]
    taken = await second.claimed()
    assert (taken.task_id, taken.took_over, taken.overdue, taken.fence) == (task_id, True, False, held.fence + 1)
    assert workspace_id == taken.workspace_id


async def test_a_holder_that_hangs_past_its_lease_loses_its_connection_and_its_lane(
    lanes: Lanes, new_holder: NewHolder
) -> None:
    _, (task_id,) = await lanes.workspace(queued=1)
    first, second = await new_holder("one"), await new_holder("two")
    held = await first.claimed(lease_s=0.2)
    await first.start(held)
    assert await reap(second.connection) == [], "its lease has not expired"
    await asyncio.sleep(0.25)
    assert [r.reason for r in await reap(second.connection)] == ["lease_over"]
    taken = await second.claimed()
    assert taken.task_id == task_id
    assert taken.took_over
    assert await closed(first)


async def test_a_holder_within_its_lease_keeps_its_connection(lanes: Lanes, new_holder: NewHolder) -> None:
    workspace_id, _ = await lanes.workspace(queued=1)
    first, second = await new_holder("one"), await new_holder("two")
    await first.start(await first.claimed(lease_s=30))
    await lanes.pool.execute("UPDATE wvs.lanes SET ready_at = now() WHERE workspace_id = $1", workspace_id)
    for _ in range(3):
        assert await second.claim() is None
        await asyncio.sleep(0.11)
    assert not await closed(first)


async def test_a_holder_that_stops_after_its_commit_loses_the_lane_with_its_lease(
    lanes: Lanes, new_holder: NewHolder
) -> None:
    """It has ended its task but not released the lock. Only the lease, which outlives the task, bounds that."""
    _, (_, second_task) = await lanes.workspace(queued=2)
    first, second = await new_holder("one"), await new_holder("two")
    held = await first.claimed(lease_s=0.3)
    await first.start(held)
    await first.fail(held)
    assert await second.claim() is None
    await asyncio.sleep(0.35)
    taken = await second.claimed()
    assert (taken.task_id, taken.took_over) == (second_task, False)
    assert await closed(first)


async def test_a_renewal_prolongs_the_lease_and_stores_progress(lanes: Lanes, new_holder: NewHolder) -> None:
    workspace_id, (task_id,) = await lanes.workspace(queued=1)
    holder = await new_holder("one")
    held = await holder.claimed(lease_s=1)
    await holder.start(held)
    before = await lanes.column(workspace_id, "lease_until")
    assert await renew(holder.connection, held, None, HALF) is Order.GO_ON
    assert await lanes.column(workspace_id, "lease_until") == before
    assert await renew(holder.connection, held, 60) is Order.GO_ON
    after = await lanes.column(workspace_id, "lease_until")
    assert isinstance(before, datetime)
    assert isinstance(after, datetime)
    assert (after - before).total_seconds() > 50
    stored = await lanes.pool.fetchval("SELECT progress FROM wvs.queue WHERE task_id = $1", task_id)
    assert b'"files_done": 1' in stored


async def test_a_renewal_reports_a_cancel_and_the_deadline(lanes: Lanes, new_holder: NewHolder) -> None:
    workspace_id, (task_id,) = await lanes.workspace(queued=1)
    holder = await new_holder("one")
    held = await holder.claimed(deadlines_s={TaskKind.SNAPSHOT_CREATE: 0.3})
    await holder.start(held)
    await lanes.cancel(workspace_id, task_id)
    assert await renew(holder.connection, held, 30) is Order.CANCEL
    await asyncio.sleep(0.35)
    before = await lanes.column(workspace_id, "lease_until")
    assert await renew(holder.connection, held, 30) is Order.DEADLINE
    assert await lanes.column(workspace_id, "lease_until") == before, "the lease must not extend beyond the deadline"


async def test_a_task_is_overdue_if_its_holder_was_alive_at_the_deadline(lanes: Lanes, new_holder: NewHolder) -> None:
    workspace_id, _ = await lanes.workspace(queued=1)
    first, second, third = await new_holder("one"), await new_holder("two"), await new_holder("three")
    held = await first.claimed(deadlines_s={TaskKind.SNAPSHOT_CREATE: 0.05})
    await first.start(held)
    await asyncio.sleep(0.1)
    assert await renew(first.connection, held, 30) is Order.DEADLINE
    first.connection.terminate()
    await reap(second.connection)
    taken = await second.claimed()
    assert taken.overdue
    assert not await lanes.column(workspace_id, "overdue"), "the next holder has its own time"
    await second.start(taken)
    second.connection.terminate()
    await reap(third.connection)
    assert not (await third.claimed()).overdue


async def test_a_task_whose_holder_vanished_before_the_deadline_is_not_overdue_however_late_it_is_taken_over(
    lanes: Lanes, new_holder: NewHolder
) -> None:
    await lanes.workspace(queued=1)
    first, second = await new_holder("one"), await new_holder("two")
    await first.start(await first.claimed(deadlines_s={TaskKind.SNAPSHOT_CREATE: 0.05}))
    first.connection.terminate()
    await asyncio.sleep(0.1)
    await reap(second.connection)
    taken = await second.claimed()
    assert (taken.took_over, taken.overdue) == (True, False)


async def test_a_renewal_after_the_end_of_the_task_is_no_lost_lease(lanes: Lanes, new_holder: NewHolder) -> None:
    await lanes.workspace(queued=2)
    holder = await new_holder("one")
    held = await holder.claimed()
    await holder.start(held)
    await holder.fail(held)
    assert await renew(holder.connection, held, 30) is Order.ENDED
    await holder.release(held)
    await holder.claimed()
    assert await renew(holder.connection, held, 30) is Order.STALE


async def test_a_stale_holder_changes_nothing(lanes: Lanes, new_holder: NewHolder) -> None:
    workspace_id, (task_id,) = await lanes.workspace(queued=1)
    first, second = await new_holder("one"), await new_holder("two")
    stale = await first.claimed()
    await first.start(stale)
    first.connection.terminate()
    for _ in range(100):
        if await reap(second.connection):
            break
        await asyncio.sleep(0.01)
    taken = await second.claimed()
    await second.start(taken)
    lane = "SELECT to_jsonb(l) FROM wvs.lanes l WHERE workspace_id = $1"
    queue = "SELECT to_jsonb(q) FROM wvs.queue q WHERE task_id = $1"
    before = (await lanes.pool.fetchval(lane, workspace_id), await lanes.pool.fetchval(queue, task_id))
    events = await lanes.pool.fetchval("SELECT count(*) FROM wvs.events")

    assert await renew(second.connection, stale, 60, HALF) is Order.STALE
    with pytest.raises(Refused) as refused:
        await first.fail(stale)
    assert refused.value.code is ErrorCode.LEASE_LOST
    after = (await lanes.pool.fetchval(lane, workspace_id), await lanes.pool.fetchval(queue, task_id))
    assert after == before
    assert await lanes.pool.fetchval("SELECT count(*) FROM wvs.events") == events


async def test_a_parked_claim_is_taken_over_only_after_its_time(lanes: Lanes, new_holder: NewHolder) -> None:
    await lanes.workspace(queued=1)
    first, second = await new_holder("one"), await new_holder("two")
    held = await first.claimed()
    await park(first.connection, held, 0.3)
    await first.release(held)
    assert await reap(second.connection) == []
    assert await second.claim() is None
    await asyncio.sleep(0.35)
    taken = await second.claim()
    assert taken is not None
    assert taken.took_over
