"""Which task is claimed next: in order within a workspace, fair between workspaces, one at a time in each."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.integration.queue.conftest import AGAIN, Lanes, NewHolder

from wvs.postgres.locks import HOLDER
from wvs.queue.lanes import FULL_SCAN_EVERY, LaneCursor, reap


async def test_tasks_of_a_workspace_are_claimed_in_the_order_of_their_acceptance(
    lanes: Lanes, new_holder: NewHolder
) -> None:
    _, accepted = await lanes.workspace(queued=6)
    holder = await new_holder("one")
    assert [(await holder.run()).task_id for _ in accepted] == accepted
    assert await holder.claim() is None


async def test_a_workspace_with_many_tasks_does_not_keep_the_others_waiting(
    lanes: Lanes, new_holder: NewHolder
) -> None:
    busy, *others = await lanes.workspaces(5, 1, 1, 1)
    holder = await new_holder("one")
    order: list[UUID] = []
    for _ in range(8):
        holder.cursor = LaneCursor()  # the order must come from the times of the lanes, not from the bound of a scan
        order.append((await holder.run()).workspace_id)
    assert order[:4] == [busy, *others]
    assert order[4:] == [busy] * 4


async def test_one_task_of_a_workspace_runs_at_a_time(lanes: Lanes, new_holder: NewHolder) -> None:
    workspaces = set(await lanes.workspaces(3, 3, 3, 3))
    holders = [await new_holder(f"h{n}") for n in range(8)]
    held = [c for c in await asyncio.gather(*(h.claim() for h in holders)) if c is not None]
    held += [c for c in await asyncio.gather(*(h.claim() for h in holders)) if c is not None]
    assert {c.workspace_id for c in held} == workspaces
    assert len(held) == len(workspaces)


async def test_a_task_that_waits_for_its_retry_keeps_its_place(lanes: Lanes, new_holder: NewHolder) -> None:
    _, (first, second) = await lanes.workspace(queued=2)
    holder = await new_holder("one")
    held = await holder.claimed()
    await holder.start(held)
    await holder.fail(held, AGAIN)
    await holder.release(held)

    assert await holder.claim() is None, "the second task must not overtake the first"
    again = await holder.claimed()
    assert (held.task_id, again.task_id) == (first, first)
    await holder.start(again)
    await holder.fail(again)
    await holder.release(again)
    assert (await holder.claimed()).task_id == second


async def test_a_task_retried_by_hand_goes_behind_those_accepted_since(lanes: Lanes, new_holder: NewHolder) -> None:
    workspace_id, (first, second) = await lanes.workspace(queued=2)
    holder = await new_holder("one")
    await holder.run()
    await lanes.retry(workspace_id, first)
    assert [(await holder.run()).task_id for _ in range(2)] == [second, first]


async def test_a_locked_lane_does_not_hide_the_ready_ones_behind_it(lanes: Lanes, new_holder: NewHolder) -> None:
    locked, behind = await lanes.workspaces(1, 1)
    lane_no = await lanes.column(locked, "lane_no")
    blocker = await new_holder("blocker")
    await blocker.connection.execute("SELECT pg_advisory_lock($1, $2)", HOLDER, lane_no)
    holder = await new_holder("one")
    held = await holder.claim()
    assert held is not None
    assert held.workspace_id == behind


async def test_a_lane_put_off_because_it_was_locked_is_ready_when_it_is_released(
    lanes: Lanes, new_holder: NewHolder
) -> None:
    _, (_, second) = await lanes.workspace(queued=2)
    holder, other = await new_holder("one"), await new_holder("two")
    held = await holder.claimed()
    await holder.start(held)
    await holder.fail(held)
    assert await other.claim() is None, "the commit has freed the lane, but its holder has not released the lock"
    assert await holder.release(held) is True
    found = await other.claim()
    assert found is not None
    assert found.task_id == second


async def test_a_release_does_not_shorten_the_wait_for_a_retry(lanes: Lanes, new_holder: NewHolder) -> None:
    workspace_id, _ = await lanes.workspace(queued=1)
    holder = await new_holder("one")
    held = await holder.claimed()
    await holder.start(held)
    await holder.fail(held, AGAIN)
    before = await lanes.column(workspace_id, "ready_at")
    assert await holder.release(held) is False
    assert await lanes.column(workspace_id, "ready_at") == before


async def test_a_lane_below_the_bound_is_found_although_another_is_always_ready(
    lanes: Lanes, new_holder: NewHolder
) -> None:
    overlooked, endless = await lanes.workspaces(1, 1)
    old = datetime.now(UTC) - timedelta(hours=1)
    await lanes.pool.execute("UPDATE wvs.lanes SET ready_at = $2 WHERE workspace_id = $1", overlooked, old)
    holder = await new_holder("one")
    holder.cursor.start()  # the first scan starts at the beginning anyway
    holder.cursor.advance(old + timedelta(minutes=1))
    claims = 1
    while (held := await holder.claimed()).workspace_id != overlooked:
        assert held.workspace_id == endless
        claims += 1
        await lanes.enqueue(endless)
        await holder.start(held)
        await holder.fail(held)
        await holder.release(held)
    assert 1 < claims <= FULL_SCAN_EVERY


async def test_the_cursor_restarts_when_no_lane_is_above_its_bound() -> None:
    cursor = LaneCursor()
    at = datetime.now(UTC)
    beginning = cursor.start()
    cursor.advance(at)
    assert cursor.start() == at
    cursor.reset()
    assert cursor.start() == beginning


async def test_a_cancelled_task_is_never_claimed(lanes: Lanes, new_holder: NewHolder) -> None:
    holder = await new_holder("one")
    for _ in range(10):
        workspace_id, (first, second) = await lanes.workspace(queued=2)
        held, _ = await asyncio.gather(holder.claimed(), lanes.cancel(workspace_id, first))
        assert held.task_id in (first, second)
        if held.task_id == first:
            assert await lanes.column(workspace_id, "task_id") is None, "a cancelled task must not hold the lane"
            await holder.release(held)
            held = await holder.claimed()
        assert held.task_id == second
        await holder.start(held)
        await holder.fail(held)
        await holder.release(held)


async def test_a_claim_and_a_cancel_do_not_wait_for_each_other(lanes: Lanes, new_holder: NewHolder) -> None:
    """The cancel pauses between the queue's row and the lane's; Postgres ends a deadlock only after a second."""
    await lanes.pool.execute(
        """
        CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
        CREATE TRIGGER pause AFTER DELETE ON wvs.queue FOR EACH ROW EXECUTE FUNCTION pause();
        """
    )
    workspace_id, (first, second) = await lanes.workspace(queued=2)
    holder = await new_holder("one")
    cancelling = asyncio.create_task(lanes.cancel(workspace_id, first))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    assert await holder.claim() is None, "the cancel has locked the lane, so the claim must skip it"
    assert time.monotonic() - started < 0.2
    await cancelling
    assert (await holder.claimed()).task_id == second


async def test_the_reaper_does_not_free_lanes_of_fast_holders(lanes: Lanes, new_holder: NewHolder) -> None:
    workspaces = [(await lanes.workspace(queued=0))[0] for _ in range(3)]
    holders = [await new_holder(f"h{n}") for n in range(3)]
    reaper = await new_holder("reaper")
    over = asyncio.Event()

    async def work(holder: object) -> None:
        for workspace_id in workspaces * 8:
            await lanes.enqueue(workspace_id)
            await holder.run()  # type: ignore[attr-defined]

    async def watch() -> list[object]:
        found: list[object] = []
        while not over.is_set():
            found += await reap(reaper.connection)
        return found

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(work(h) for h in holders))
    over.set()
    assert await watching == []
