"""For a snapshot an agent goes on as soon as it has looked whether it stood still, and answers after that."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.integration.agent.conftest import Service, until

from wvs.agent import Unreachable, register
from wvs.agent.transport import Transport
from wvs.domain.states import TaskState

Arrange = Callable[[Callable[[], Awaitable[None]]], None]


class Answers:
    """What becomes of each `still_frozen`, in order: `lost` on its way, its answer `unheard`, or `late`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *fates: str) -> None:
        self.tokens: list[str] = []
        self.on_their_way = asyncio.Event()
        self.may_arrive = asyncio.Event()
        fate = iter(fates)
        real = Transport.call

        async def call(transport: Transport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
            if body is None or body.get("kind") != "still_frozen":
                return await real(transport, method, path, answer, body)
            self.tokens.append(body["token"])
            self.on_their_way.set()
            match next(fate, ""):
                case "lost":
                    raise Unreachable("lost on its way")
                case "unheard":
                    await real(transport, method, path.partition("?")[0], answer, body)
                    raise Unreachable("the answer was lost on its way")
                case "late":
                    await self.may_arrive.wait()
            return await real(transport, method, path, answer, body)

        monkeypatch.setattr(Transport, "call", call)


async def test_it_runs_again_before_its_answer_has_arrived(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert not taking.done(), "nothing is published without its answer"
        answers.may_arrive.set()
        snapshot_id, state = await taking
    assert state is TaskState.SUCCEEDED
    assert not ((await service.tree(snapshot_id)) / "written").exists()
    assert await service.attempts_failed() == []


@pytest.mark.parametrize("fate", ["lost", "unheard"])
async def test_an_answer_that_was_lost_is_given_again_although_it_runs(
    fate: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it stood still until after the clone stays true: the clone must not be lost with a packet."""
    answers = Answers(monkeypatch, fate)
    async with await register(service.url, service.name, agent="counter"):
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        await until(lambda: len(answers.tokens) >= (2 if fate == "lost" else 1))
    assert len(set(answers.tokens)) == 1
    assert await service.attempts_failed() == []


async def test_who_ends_before_it_has_answered_answers_first(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that was about to end goes on to its end at once; no clone is lost for that."""
    answers = Answers(monkeypatch, "late")
    async with await register(service.url, service.name, agent="short"):
        taking = asyncio.create_task(service.snapshot())
        await asyncio.wait_for(answers.on_their_way.wait(), 20)
    snapshot_id, state = await taking
    assert state is TaskState.SUCCEEDED
    assert await service.attempts_failed() == []
    assert len(answers.tokens) == 2
    assert (await service.document(snapshot_id))["certificate"]["members"][0]["token"] == answers.tokens[0]


async def test_the_token_of_a_standstill_that_was_confirmed_proves_no_later_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(monkeypatch)
    async with await register(service.url, service.name, agent="counter"):
        for _ in range(3):
            _, state = await service.snapshot()
            assert state is TaskState.SUCCEEDED
    assert len(set(answers.tokens)) == 3


async def test_many_agents_of_one_workspace_go_on_first_and_answer_one_after_the_other(
    service: Service, monkeypatch: pytest.MonkeyPatch, after_the_clone: Arrange
) -> None:
    """Twelve programs under the wrapper, which all run when the last answer is given."""
    agents = [await service.shell("echo ready; while true; do sleep 0.01; done") for _ in range(12)]
    for agent in agents:
        assert await agent.line() == "ready"

    async def nothing_runs() -> None:
        for session in await service.sessions():
            cgroup = await service.cgroup_of(session["id"])
            assert "frozen 1" in (cgroup / "cgroup.events").read_text()

    after_the_clone(nothing_runs)
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert len((await service.document(snapshot_id))["certificate"]["members"]) == 12
    for session in await service.sessions():
        cgroup = await service.cgroup_of(session["id"])
        assert "frozen 0" in (cgroup / "cgroup.events").read_text()
    assert await service.attempts_failed() == []
