"""Acknowledgements of many sessions at once: each gets the answer that it would get alone."""

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Any

import asyncpg
import pytest

from wvs.domain.errors import ErrorCode, Refused
from wvs.postgres.pool import Pool
from wvs.quiesce import freezes
from wvs.quiesce.ack_batches import AckKind, Acknowledgement
from wvs.quiesce.sessions import Acknowledged, Directive, DirectiveKind, Sessions, SessionState

BUDGET_S = 60.0


class Workspace:
    """A workspace with sessions and an open freeze."""

    def __init__(self, pool: Pool, sessions: Sessions) -> None:
        self.pool, self.sessions = pool, sessions
        self.id, self.task_id = uuid.uuid4(), uuid.uuid4()
        self.members: list[uuid.UUID] = []
        self.freeze = 0

    async def begin(self, members: int) -> None:
        await self.pool.execute(
            "INSERT INTO wvs.workspaces (id, name, state, labels, live_tree, epoch, created_at) "
            "VALUES ($1, $2, 'active', '{}', 'tree', 1, now())",
            self.id,
            f"w-{self.id.hex[:12]}",
        )
        await self.pool.execute(
            "INSERT INTO wvs.lanes (workspace_id, task_id, fence) VALUES ($1, $2, 1)", self.id, self.task_id
        )
        for _ in range(members):
            await self.join()

    async def join(self) -> uuid.UUID:
        session, _ = await self.sessions.register(uuid.uuid4(), self.id, "a", "h", 1, 30)
        self.members.append(session.id)
        await self.sessions.directive(session.id)
        return session.id

    async def open(self) -> None:
        number = await self.pool.fetchval(
            "SELECT number FROM wvs.open_freeze_v2($1, 1, $2, $3, NULL)", self.id, self.task_id, BUDGET_S
        )
        assert number is not None
        self.freeze = number

    async def confirm(self, *, resume: bool) -> None:
        async with self.pool.acquire() as connection:
            assert await freezes.confirm(connection, self.id, self.freeze, BUDGET_S, resume=resume)  # pyright: ignore[reportArgumentType]

    async def close(self) -> None:
        async with self.pool.acquire() as connection:
            await freezes.close(connection, self.id, self.freeze, "frozen")  # pyright: ignore[reportArgumentType]

    def frozen(self, token: str = "t") -> Acknowledgement:
        return Acknowledgement(AckKind.FROZEN, self.freeze, token, "ok")

    def still_frozen(self, token: str = "t") -> Acknowledgement:
        return Acknowledgement(AckKind.STILL_FROZEN, self.freeze, token)

    async def acknowledge_all(self, ack: Acknowledgement) -> list[Acknowledged]:
        return await asyncio.gather(*(self.sessions.acknowledge(member, ack) for member in self.members))

    async def directive_of(self, session_id: uuid.UUID) -> Directive:
        return await self.sessions.directive(session_id)


@pytest.fixture
def sessions(pool: Pool) -> Sessions:
    return Sessions(pool)


async def workspace(sessions: Sessions, pool: Pool, members: int) -> Workspace:
    made = Workspace(pool, sessions)
    await made.begin(members)
    await made.open()
    return made


async def outcome(call: Awaitable[Acknowledged]) -> str:
    try:
        return str((await call).directive.kind)
    except Refused as refusal:
        return refusal.code


def batch_sizes(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of acknowledgements in each statement."""
    sizes: list[int] = []
    real = type(pool).fetch

    async def fetch(self: Any, query: str, *args: Any, **more: Any) -> Any:
        if "acknowledge_together" in query:
            sizes.append(len(args[0]))
        return await real(self, query, *args, **more)

    monkeypatch.setattr(type(pool), "fetch", fetch)
    return sizes


async def test_acknowledgements_that_arrive_during_a_write_share_a_statement(
    sessions: Sessions, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = batch_sizes(pool, monkeypatch)
    one = await workspace(sessions, pool, 20)
    taken = await one.acknowledge_all(one.frozen())
    assert len(taken) == 20
    assert [t.settled for t in taken if t.settled] != [], "no acknowledgement would wake the executor"
    assert sum(sizes) == 20
    assert len(sizes) <= 3, sizes


async def test_each_acknowledgement_of_a_batch_has_its_own_result(sessions: Sessions, pool: Pool) -> None:
    one, other = await workspace(sessions, pool, 5), await workspace(sessions, pool, 1)
    unknown_session = uuid.uuid4()
    calls = [
        one.sessions.acknowledge(one.members[0], one.frozen()),
        one.sessions.acknowledge(one.members[1], Acknowledgement(AckKind.FROZEN, one.freeze + 7, "t", "ok")),
        one.sessions.acknowledge(one.members[2], one.still_frozen()),
        one.sessions.acknowledge(one.members[3], Acknowledgement(AckKind.REFUSED, one.freeze, reason="no")),
        one.sessions.acknowledge(one.members[4], one.frozen()),
        one.sessions.acknowledge(one.members[0], one.frozen()),
        one.sessions.acknowledge(one.members[4], one.frozen("another")),
        one.sessions.acknowledge(unknown_session, one.frozen()),
        one.sessions.acknowledge(other.members[0], other.frozen()),
    ]
    stale, unknown = ErrorCode.FREEZE_STALE, ErrorCode.SESSION_NOT_FOUND
    expected = ["freeze", stale, stale, "freeze", "freeze", "freeze", stale, unknown, "freeze"]
    assert await asyncio.gather(*map(outcome, calls)) == expected
    states = await pool.fetch(
        "SELECT state FROM wvs.freeze_members WHERE workspace_id = $1 ORDER BY session_id", one.id
    )
    assert sorted(row["state"] for row in states) == ["asked", "asked", "frozen", "frozen", "refused"]


async def test_an_acknowledgement_that_fails_the_statement_fails_alone(sessions: Sessions, pool: Pool) -> None:
    """Postgres refuses this acknowledgement. The API would refuse it before."""
    one = await workspace(sessions, pool, 4)
    poison = Acknowledgement(AckKind.FROZEN, one.freeze, "t\0", "ok")
    acks = [one.frozen(), one.frozen(), poison, one.frozen()]
    calls = [one.sessions.acknowledge(member, ack) for member, ack in zip(one.members, acks, strict=True)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(each, Acknowledged) for each in results] == [True, True, False, True]
    assert isinstance(results[2], asyncpg.PostgresError)


async def test_a_lost_connection_fails_the_whole_batch(
    sessions: Sessions, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome is unknown, so the acknowledgements are not written again one by one."""
    sizes: list[int] = []

    async def fetch(self: Any, query: str, *args: Any, **more: Any) -> Any:
        sizes.append(len(args[0]))
        raise asyncpg.ConnectionDoesNotExistError("lost")

    one = await workspace(sessions, pool, 5)
    monkeypatch.setattr(type(pool), "fetch", fetch)
    calls = (one.sessions.acknowledge(member, one.frozen()) for member in one.members)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, asyncpg.ConnectionDoesNotExistError) for each in results)
    assert sum(sizes) == 5


async def test_a_cancelled_caller_does_not_cancel_the_others(sessions: Sessions, pool: Pool) -> None:
    one = await workspace(sessions, pool, 3)
    tasks = [asyncio.create_task(one.sessions.acknowledge(member, one.frozen())) for member in one.members]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], Acknowledged)
    assert await outcome(one.sessions.acknowledge(one.members[0], one.frozen())) == "freeze"


async def test_an_acknowledgement_renews_the_lease(sessions: Sessions, pool: Pool) -> None:
    one = await workspace(sessions, pool, 2)
    await pool.execute("UPDATE wvs.sessions SET lease_until = now() - interval '1 s' WHERE workspace_id = $1", one.id)
    await one.sessions.acknowledge(one.members[0], one.frozen())
    assert not (await one.sessions.get(one.members[0])).lease_expired
    assert (await one.sessions.get(one.members[1])).lease_expired


async def test_a_member_that_has_confirmed_runs_while_the_others_are_asked(sessions: Sessions, pool: Pool) -> None:
    one = await workspace(sessions, pool, 2)
    first, second = one.members
    await one.acknowledge_all(one.frozen())
    await one.confirm(resume=True)
    asked = await one.directive_of(first)
    assert (asked.kind, asked.resume) == (DirectiveKind.CONFIRM, True)
    taken = await one.sessions.acknowledge(first, one.still_frozen())
    assert taken.directive.kind is DirectiveKind.RUN
    assert taken.directive.number > asked.number, "a waiting request must see a greater number"
    assert not taken.settled
    assert (await one.directive_of(second)).kind is DirectiveKind.CONFIRM
    assert (await one.sessions.acknowledge(second, one.still_frozen())).settled
    before = (await one.directive_of(first)).number
    await one.close()
    assert (await one.directive_of(first)).number == before, "the end must not be news for a member that runs"


async def test_a_repeated_acknowledgement_changes_nothing(sessions: Sessions, pool: Pool) -> None:
    one = await workspace(sessions, pool, 2)
    await one.acknowledge_all(one.frozen())
    await one.confirm(resume=True)
    first = await one.sessions.acknowledge(one.members[0], one.still_frozen())
    again = await one.sessions.acknowledge(one.members[0], one.still_frozen())
    assert (again.directive.kind, again.directive.number) == (DirectiveKind.RUN, first.directive.number)


async def test_a_crash_that_loses_asynchronous_commits_hides_no_freeze(sessions: Sessions, pool: Pool) -> None:
    """The confirmation and its answer are committed asynchronously. Both are undone here, as by a crash."""
    one = await workspace(sessions, pool, 1)
    (member,) = one.members
    await one.acknowledge_all(one.frozen())
    lane = await pool.fetchval("SELECT directives FROM wvs.lanes WHERE workspace_id = $1", one.id)
    own = await pool.fetchval("SELECT directives FROM wvs.sessions WHERE id = $1", member)
    await one.confirm(resume=True)
    seen = (await one.sessions.acknowledge(member, one.still_frozen())).directive.number
    await pool.execute("UPDATE wvs.lanes SET directives = $2 WHERE workspace_id = $1", one.id, lane)
    await pool.execute("UPDATE wvs.sessions SET directives = $2 WHERE id = $1", member, own)
    await pool.execute("UPDATE wvs.freezes SET phase = 'freezing', resumes = false WHERE workspace_id = $1", one.id)
    await pool.execute("UPDATE wvs.freeze_members SET state = 'frozen', told = false WHERE workspace_id = $1", one.id)
    await one.close()
    await one.open()
    now = await one.directive_of(member)
    assert now.kind is DirectiveKind.FREEZE
    assert now.number > seen


async def test_no_agent_resumes_in_a_live_tree_that_was_replaced(sessions: Sessions, pool: Pool) -> None:
    """A freeze right after a switch finds agents that are still frozen in the old tree."""
    one = await workspace(sessions, pool, 1)
    (member,) = one.members
    await pool.execute("UPDATE wvs.workspaces SET epoch = 2, live_tree = 'tree2' WHERE id = $1", one.id)
    await one.acknowledge_all(one.frozen())
    await one.confirm(resume=True)
    asked = await one.directive_of(member)
    assert (asked.kind, asked.resume) == (DirectiveKind.CONFIRM, False)
    taken = await one.sessions.acknowledge(member, one.still_frozen())
    assert taken.directive.kind is DirectiveKind.FREEZE
    await one.close()
    now = await one.directive_of(member)
    assert now.kind is DirectiveKind.SWITCH
    assert now.number > asked.number


async def test_a_session_that_registers_while_the_end_waits_for_the_lane_runs_after_it(
    sessions: Sessions, pool: Pool
) -> None:
    one = await workspace(sessions, pool, 1)
    await one.acknowledge_all(one.frozen())
    await one.confirm(resume=True)
    await one.acknowledge_all(one.still_frozen())
    late = uuid.uuid4()
    async with pool.acquire() as connection, connection.transaction():
        await connection.fetchval("SELECT wvs.register_session($1, $2, 'a', 'h', 1, 30)", late, one.id)
        closing = asyncio.create_task(one.close())
        await asyncio.sleep(0.3)
        assert not closing.done()
        before = await connection.fetchrow("SELECT kind, number FROM wvs.directive_for($1)", late)
        assert before is not None
        assert before["kind"] == "freeze"
    await closing
    now = await one.directive_of(late)
    assert now.kind is DirectiveKind.RUN
    assert now.number > before["number"]


async def test_the_end_of_a_workspace_is_a_new_number(sessions: Sessions, pool: Pool) -> None:
    one = await workspace(sessions, pool, 1)
    before = await one.directive_of(one.members[0])
    await pool.execute("UPDATE wvs.workspaces SET state = 'disabled' WHERE id = $1", one.id)
    now = await one.directive_of(one.members[0])
    assert now.kind is DirectiveKind.END
    assert now.number > before.number


async def test_a_session_that_joined_during_a_freeze_runs_after_its_end(sessions: Sessions, pool: Pool) -> None:
    one = await workspace(sessions, pool, 1)
    await one.acknowledge_all(one.frozen())
    late = await one.join()
    await one.confirm(resume=True)
    await one.sessions.acknowledge(one.members[0], one.still_frozen())
    waiting = await one.directive_of(late)
    assert (waiting.kind, waiting.member, waiting.resume) == (DirectiveKind.FREEZE, False, False)
    await one.close()
    now = await one.directive_of(late)
    assert now.kind is DirectiveKind.RUN
    assert now.number > waiting.number


async def test_no_agent_runs_before_the_new_live_tree_is_in_place(sessions: Sessions, pool: Pool) -> None:
    one = await workspace(sessions, pool, 1)
    (member,) = one.members
    await one.acknowledge_all(one.frozen())
    await one.confirm(resume=False)
    asked = await one.directive_of(member)
    assert (asked.kind, asked.resume) == (DirectiveKind.CONFIRM, False)
    taken = await one.sessions.acknowledge(member, one.still_frozen())
    assert taken.directive.kind is DirectiveKind.FREEZE


@pytest.mark.parametrize("resume", [False, True])
async def test_the_live_tree_moves_only_under_a_freeze_that_resumes_no_member(
    resume: bool, sessions: Sessions, pool: Pool
) -> None:
    one = await workspace(sessions, pool, 1)
    await one.acknowledge_all(one.frozen())
    await one.confirm(resume=resume)
    await one.acknowledge_all(one.still_frozen())
    moved = pool.execute("UPDATE wvs.lanes SET link_pending = 2 WHERE workspace_id = $1", one.id)
    if not resume:
        await moved
        return
    with pytest.raises(asyncpg.PostgresError) as refused:
        await moved
    assert refused.value.sqlstate == "WV001"


@pytest.mark.parametrize("state", [SessionState.ENDED, SessionState.EVICTED])
@pytest.mark.parametrize(("confirms", "left"), [(True, "confirmed"), (False, None)])
async def test_a_member_that_has_confirmed_stays_confirmed_when_it_ends(
    state: SessionState, confirms: bool, left: str | None, sessions: Sessions, pool: Pool
) -> None:
    one = await workspace(sessions, pool, 2)
    first = one.members[0]
    await one.acknowledge_all(one.frozen())
    await one.confirm(resume=True)
    if confirms:
        await one.sessions.acknowledge(first, one.still_frozen())
    await one.sessions.leave(first, state)
    found = await pool.fetchval("SELECT state FROM wvs.freeze_members WHERE session_id = $1", first)
    assert found == (left or ("left" if state is SessionState.ENDED else "evicted"))
