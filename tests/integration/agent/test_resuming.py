"""For a snapshot an agent resumes once its session has checked that it was frozen, and answers after that."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from tests.integration.agent.conftest import SHORT_BUDGET_S, Service, cgroups_of, until

from wvs.agent import Unreachable, register
from wvs.agent.errors import CannotFreeze
from wvs.agent.freeze_state import FreezeState
from wvs.agent.transport import AgentTransport
from wvs.domain.states import TaskState

Arrange = Callable[[Callable[[], Awaitable[None]]], None]


class Answers:
    """The fate of each `still_frozen`, in order: request `lost`, answer lost (`unanswered`), or request `late`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *fates: str) -> None:
        self.tokens: list[str] = []
        self.on_their_way = asyncio.Event()
        self.may_arrive = asyncio.Event()
        fate = iter(fates)
        real = AgentTransport.call

        async def call(transport: AgentTransport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
            if body is None or body.get("kind") != "still_frozen":
                return await real(transport, method, path, answer, body)
            self.tokens.append(body["token"])
            self.on_their_way.set()
            match next(fate, ""):
                case "lost":
                    raise Unreachable("lost on its way")
                case "unanswered":
                    await real(transport, method, path.partition("?")[0], answer, body)
                    raise Unreachable("the answer was lost on its way")
                case "late":
                    await self.may_arrive.wait()
            return await real(transport, method, path, answer, body)

        monkeypatch.setattr(AgentTransport, "call", call)


async def test_an_agent_resumes_before_its_answer_has_arrived(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(monkeypatch, "late")
    runs = asyncio.Event()
    runs.set()

    async def on_freeze() -> None:
        runs.clear()

    async def on_thaw() -> None:
        runs.set()

    async with await register(service.url, service.name, agent="counter", on_freeze=on_freeze, on_thaw=on_thaw):
        taking = asyncio.create_task(service.snapshot())
        await asyncio.wait_for(answers.on_their_way.wait(), 20)
        assert runs.is_set()
        (service.live / "written").write_text("after the clone")
        assert not taking.done(), "the snapshot must not be published without the answer"
        answers.may_arrive.set()
        snapshot_id, state = await taking
    assert state is TaskState.SUCCEEDED
    assert not ((await service.tree(snapshot_id)) / "written").exists()
    assert await service.attempts_failed() == []


@pytest.mark.parametrize(("fate", "at_least"), [("lost", 2), ("unanswered", 1)])
async def test_a_lost_answer_is_repeated_although_the_agent_runs(
    fate: str, at_least: int, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent was frozen until after the clone. A lost packet must not discard the clone."""
    answers = Answers(monkeypatch, fate)
    async with await register(service.url, service.name, agent="counter"):
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
    assert len(answers.tokens) >= at_least
    assert len(set(answers.tokens)) == 1
    assert await service.attempts_failed() == []


async def test_a_session_that_ends_sends_its_owed_answer_first(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends right after it resumed must not discard a clone."""
    answers = Answers(monkeypatch, "late")
    async with await register(service.url, service.name, agent="short"):
        taking = asyncio.create_task(service.snapshot())
        await asyncio.wait_for(answers.on_their_way.wait(), 20)
    snapshot_id, state = await taking
    assert state is TaskState.SUCCEEDED
    assert await service.attempts_failed() == []
    assert len(answers.tokens) == 2
    assert (await service.document(snapshot_id))["certificate"]["members"][0]["token"] == answers.tokens[0]


async def test_every_freeze_has_its_own_token(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch)
    async with await register(service.url, service.name, agent="counter"):
        for _ in range(3):
            _, state = await service.snapshot()
            assert state is TaskState.SUCCEEDED
    assert len(set(answers.tokens)) == 3


async def test_no_agent_stays_frozen_for_the_answer_of_another(
    service: Service, monkeypatch: pytest.MonkeyPatch, after_the_clone: Arrange
) -> None:
    """Six programs under the wrapper, and one agent whose answer is late."""
    answers = Answers(monkeypatch, "late")
    agents = [await service.shell("echo ready; while true; do sleep 0.01; done") for _ in range(6)]
    for agent in agents:
        assert await agent.line() == "ready"

    async def all_report(state: str) -> bool:
        cgroups = [cgroup for session in await service.sessions() for cgroup in cgroups_of(session["id"])]
        return len(cgroups) == 6 and all(state in (cgroup / "cgroup.events").read_text() for cgroup in cgroups)

    async def nothing_runs() -> None:
        assert await all_report("frozen 1")

    after_the_clone(nothing_runs)
    async with await register(service.url, service.name, agent="far away"):
        taking = asyncio.create_task(service.snapshot())
        await asyncio.wait_for(answers.on_their_way.wait(), 20)
        async with asyncio.timeout(20):
            while not await all_report("frozen 0"):
                await asyncio.sleep(0.01)
        assert not taking.done()
        answers.may_arrive.set()
        snapshot_id, state = await taking
    assert state is TaskState.SUCCEEDED
    assert len((await service.document(snapshot_id))["certificate"]["members"]) == 7
    assert await service.attempts_failed() == []


@pytest.mark.parametrize("fails", [False, True])
async def test_an_agent_that_is_slow_to_resume_or_fails_to_costs_no_snapshot(
    fails: bool, short_freezes: None, service: Service
) -> None:
    """The hook takes longer than the whole budget of a freeze. The answer does not wait for it."""

    async def on_thaw() -> None:
        if fails:
            raise LookupError
        await asyncio.sleep(SHORT_BUDGET_S + 1)

    session = await register(service.url, service.name, agent="slow", on_thaw=on_thaw)
    session.follow()
    await session.until_started()
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert await service.attempts_failed() == []
    await session.stop_following()
    await session.leave()


async def test_the_answer_after_a_snapshot_waits_for_the_next_freeze_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the freeze is no news for the agent, so no request follows that answer."""
    calls: list[str] = []
    real = AgentTransport.call

    async def call(transport: AgentTransport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        calls.append((body or {}).get("kind", method))
        return await real(transport, method, path, answer, body)

    async with await register(service.url, service.name, agent="counter"):
        await service.snapshot()
        monkeypatch.setattr(AgentTransport, "call", call)
        for _ in range(3):
            _, state = await service.snapshot()
            assert state is TaskState.SUCCEEDED
        await asyncio.sleep(0.5)
        assert calls.count("still_frozen") == 3
        assert calls[-1] == "still_frozen"
        followed = [after for call, after in pairwise(calls) if call == "still_frozen"]
        assert followed == ["frozen"] * 2


async def until_open(service: Service, number: int) -> None:
    """Waits for an open freeze with a greater number."""
    query = "SELECT count(*) FROM wvs.freezes WHERE workspace_id = $1 AND number > $2 AND phase <> 'over'"
    async with asyncio.timeout(30):
        while not await service.platform.pool.fetchval(query, service.workspace_id, number):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("refuses", [False, True])
async def test_no_agent_runs_in_the_old_tree_when_a_snapshot_follows_a_switch_at_once(
    refuses: bool, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent gets the directive of the snapshot's freeze before that of the switch: it stays frozen through both.

    Also if it has to refuse the snapshot's, because the old tree cannot be flushed any more.
    """
    snapshot_id, _ = await service.snapshot()
    wrong: list[str] = []
    refused: list[str] = []
    held_back = asyncio.Event()
    real = AgentTransport.call
    follows = asyncio.Event()

    async def call(transport: AgentTransport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        if follows.is_set() and (body or {}).get("kind") == "still_frozen":
            follows.clear()
            await real(transport, method, path.partition("?")[0], answer, body)
            await held_back.wait()  # until the next freeze is open
            raise Unreachable("the answer was lost on its way")
        return await real(transport, method, path, answer, body)

    def shown() -> str:
        return (service.live.parent / "name").read_text().strip()

    async def on_thaw() -> None:
        if shown() != session.tree.name:
            wrong.append(str(session.tree.name))

    flush = FreezeState._flush

    async def flush_only_the_live_tree(state: FreezeState, until: float, budget_s: float) -> str:
        if refuses and state.tree.name != shown():
            refused.append(str(state.tree.name))
            raise CannotFreeze("the old tree is gone")
        return await flush(state, until, budget_s)

    monkeypatch.setattr(AgentTransport, "call", call)
    monkeypatch.setattr(FreezeState, "_flush", flush_only_the_live_tree)
    session = await register(service.url, service.name, agent="counter", on_thaw=on_thaw)
    async with session:
        for _ in range(1 if refuses else 5):
            before = await service.platform.pool.fetchval(
                "SELECT coalesce(max(number), 0) FROM wvs.freezes WHERE workspace_id = $1", service.workspace_id
            )
            follows.set()
            held_back.clear()
            setting = asyncio.create_task(service.platform.set_current(service.workspace_id, snapshot_id))
            await asyncio.sleep(0.01)
            taking = asyncio.create_task(service.snapshot())
            await until_open(service, before + 1)
            held_back.set()
            assert await setting is TaskState.SUCCEEDED
            taken_id, state = await taking
            assert state is (TaskState.FAILED if refuses else TaskState.SUCCEEDED)
            snapshot_id = taken_id
            await until(lambda: session.tree.name == shown())
    assert wrong == []
    assert bool(refused) is refuses
