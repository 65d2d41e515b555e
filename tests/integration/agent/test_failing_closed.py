"""Agents that do not stand still, each for real: do_nothing is published, and the message names who it was."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.agent.conftest import PATIENCE_S, Service, clear, until, until_heard
from tests.integration.agent.cutting import Network

from wvs.agent import CannotFreeze, Unreachable, register
from wvs.agent.freeze_state import GRACE_S
from wvs.agent.hooks import Hooks, do_nothing
from wvs.agent.registration import open_session
from wvs.agent.transport import AgentTransport
from wvs.domain.states import TaskState
from wvs.quiesce import freezes

WRITING = "i=0; echo ready; while true; do i=$((i+1)); echo $i > a; done"
Arrange = Callable[[Callable[[], Awaitable[None]]], None]


async def writes_on(file: Path) -> None:
    await until(file.exists)
    before = file.read_text()
    await until(lambda: file.read_text() not in ("", before))


async def test_an_agent_that_refuses_is_named_with_its_reason(service: Service) -> None:
    thawed = asyncio.Event()

    async def on_freeze() -> None:
        raise CannotFreeze("in the middle of a payment")

    async def on_thaw() -> None:
        thawed.set()

    async with await register(
        service.url, service.name, agent="payer", on_freeze=on_freeze, on_thaw=on_thaw
    ) as session:
        trees = service.platform.trees(service.workspace_id)
        _, state = await service.snapshot()
        assert state is TaskState.FAILED
        error = await service.failure()
        assert error["code"] == "QUIESCE_REFUSED"
        assert session.id in error["detail"]
        assert "in the middle of a payment" in error["detail"]
        await until(lambda: service.platform.trees(service.workspace_id) == trees)
        assert thawed.is_set()
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


async def test_a_reason_that_is_no_text_is_told_and_the_agent_follows_on(service: Service) -> None:
    """Names of files are bytes."""
    refusing = asyncio.Event()
    refusing.set()

    async def on_freeze() -> None:
        if refusing.is_set():
            raise CannotFreeze("cannot write " + os.fsdecode(b"caf\xe9\0"))

    async with await register(service.url, service.name, agent="writer", on_freeze=on_freeze):
        _, state = await service.snapshot()
        assert state is TaskState.FAILED
        error = await service.failure()
        assert error["code"] == "QUIESCE_REFUSED"
        assert r"cannot write caf\udce9\x00" in error["detail"]
        refusing.clear()
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED


async def test_a_refusal_whose_answer_is_lost_is_said_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service hears of it at once instead of waiting for the end of the budget."""
    said: list[str] = []
    real = AgentTransport.call

    async def lossy(self: AgentTransport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        if body is not None and body.get("kind") == "refused":
            said.append(body["reason"])
            if len(said) == 1:
                raise Unreachable("lost on its way")
        return await real(self, method, path, answer, body)

    async def on_freeze() -> None:
        raise CannotFreeze("in the middle of a payment")

    monkeypatch.setattr(AgentTransport, "call", lossy)
    async with await register(service.url, service.name, agent="payer", on_freeze=on_freeze):
        _, state = await service.snapshot()
        assert state is TaskState.FAILED
        assert (await service.failure())["code"] == "QUIESCE_REFUSED"
    assert said == ["in the middle of a payment"] * 2


async def test_a_stopped_wrapper_times_out_by_name_and_works_again_when_it_goes_on(
    short_freezes: None, service: Service
) -> None:
    wrapped, other = await service.shell(WRITING), await service.shell("echo ready; while true; do date +%N > b; done")
    await wrapped.line()
    await other.line()
    stopped = next(s for s in await service.sessions() if s["pid"] == wrapped.process.pid)
    trees = service.platform.trees(service.workspace_id)
    wrapped.process.send_signal(signal.SIGSTOP)
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    error = await service.failure()
    assert error["code"] == "QUIESCE_TIMEOUT"
    assert stopped["id"] in error["detail"]
    await until(lambda: service.platform.trees(service.workspace_id) == trees)
    await writes_on(service.live / "b")
    wrapped.process.send_signal(signal.SIGCONT)
    await until_heard(service, stopped["id"])
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    await writes_on(service.live / "a")


async def test_a_killed_wrapper_still_blocks_until_a_person_answers_for_its_program(
    short_freezes: None, service: Service
) -> None:
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    (session,) = await service.sessions()
    cgroup = await service.cgroup()
    assert cgroup.name == f"wvs-{session['id']}"
    other = await service.shell("echo ready; while true; do date +%N > b; done")
    await other.line()
    trees = service.platform.trees(service.workspace_id)
    wrapped.process.kill()
    await until(lambda: wrapped.process.returncode is not None)
    await writes_on(service.live / "a")
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    error = await service.failure()
    assert error["code"] == "QUIESCE_TIMEOUT"
    assert session["id"] in error["detail"]
    await until(lambda: service.platform.trees(service.workspace_id) == trees)
    await writes_on(service.live / "a")
    await writes_on(service.live / "b")
    await clear(cgroup)
    await service.evict(session["id"])
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


async def test_a_host_that_lost_the_network_goes_on_by_itself_and_its_token_is_worth_nothing(
    short_freezes: None, service: Service, after_the_clone: Arrange
) -> None:
    async with Network(service.url).running() as network:
        wrapped = await service.shell(WRITING, url=network.url)
        await wrapped.line()

        async def cut() -> None:
            network.up.clear()

        after_the_clone(cut)
        cut_off = time.monotonic()
        _, state = await service.snapshot()
        assert state is TaskState.FAILED  # broken first; then, tried again, without an answer
        assert "QUIESCE_BROKEN" in await service.attempts_failed()
        assert (await service.failure())["code"] == "QUIESCE_TIMEOUT"
        await writes_on(service.live / "a")
        assert time.monotonic() - cut_off < PATIENCE_S
        network.up.set()
        await until_heard(service)
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        wrapped.process.terminate()
        await wrapped.ended()


async def test_an_answer_that_was_long_on_its_way_does_not_make_a_standstill_longer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the seconds that were left when it was sent."""
    latest: list[float] = []
    held: list[tuple[float, float]] = []
    real = AgentTransport.call

    async def slow(self: AgentTransport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        sent = time.monotonic()
        answered = await real(self, method, path, answer, body)
        if body is not None and body.get("kind") == "frozen" and answered.budget_s is not None:
            latest.append(sent + answered.budget_s + GRACE_S)
            await asyncio.sleep(1)
        return answered

    def on_deadline(deadline: float) -> None:
        if len(latest) > len(held):
            held.append((deadline, latest[-1]))

    monkeypatch.setattr(AgentTransport, "call", slow)
    hooks = Hooks(on_freeze=do_nothing, on_thaw=do_nothing, on_switch=do_nothing, on_deadline=on_deadline)
    async with await open_session(service.url, service.name, "counter", hooks):
        await service.snapshot()
    assert held
    assert all(deadline <= allowed for deadline, allowed in held)


async def test_without_service_an_agent_whose_tree_was_replaced_starts_again_in_the_new_one(
    short_freezes: None, service: Service, after_the_clone: Arrange
) -> None:
    async with Network(service.url).running() as network:
        wrapped = await service.shell('echo "$PWD"; while true; do date > a; done', url=network.url)
        old = await wrapped.line()

        async def move_the_link_and_cut() -> None:
            network.up.clear()
            other = Path(old).parents[1] / "elsewhere" / "root"
            other.mkdir(parents=True)
            service.live.unlink()
            service.live.symlink_to(other)

        after_the_clone(move_the_link_and_cut)
        await service.snapshot()
        assert await wrapped.line() == str(service.live.resolve()) != old
        await writes_on(service.live / "a")
        network.up.set()
        wrapped.process.terminate()
        await wrapped.ended()


async def test_a_thaw_by_somebody_else_during_the_clone_discards_it(service: Service, after_the_clone: Arrange) -> None:
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    cgroup = await service.cgroup()

    async def thaw() -> None:
        (cgroup / "cgroup.freeze").write_text("0")
        await writes_on(service.live / "a")

    after_the_clone(thaw)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED  # tried again
    assert await service.attempts_failed() == ["QUIESCE_BROKEN"]
    await writes_on(service.live / "a")


async def test_a_thaw_by_somebody_else_is_told_even_if_the_answer_to_the_word_before_was_lost(
    service: Service, after_the_clone: Arrange, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands_still = asyncio.Event()
    real = AgentTransport.call

    async def lossy(self: AgentTransport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        answered = await real(self, method, path, answer, body)
        if body is not None and body.get("kind") == "frozen":
            raise Unreachable("the answer was lost on its way")
        return answered

    async def on_freeze() -> None:
        stands_still.set()

    async def on_thaw() -> None:
        stands_still.clear()

    async def thaw() -> None:
        stands_still.clear()
        monkeypatch.setattr(AgentTransport, "call", real)

    after_the_clone(thaw)
    monkeypatch.setattr(AgentTransport, "call", lossy)
    hooks = Hooks(
        on_freeze=on_freeze, on_thaw=on_thaw, on_switch=lambda _tree: on_thaw(), still_frozen=stands_still.is_set
    )
    async with await open_session(service.url, service.name, "counter", hooks):
        await service.snapshot()
    assert await service.attempts_failed() == ["QUIESCE_BROKEN"]


async def test_whoever_comes_during_a_freeze_does_not_begin_before_its_end(
    service: Service, after_the_clone: Arrange
) -> None:
    member = await service.shell(WRITING)
    await member.line()
    late: list[object] = []

    async def join() -> None:
        wrapped = await service.shell("touch late; echo ready; sleep 100")
        late.append(wrapped)
        while len(await service.sessions()) < 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert not (service.live / "late").exists()

    after_the_clone(join)
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert await service.wrapped[-1].line() == "ready"
    assert (service.live / "late").exists()
    assert not ((await service.tree(snapshot_id)) / "late").exists()
    assert len((await service.document(snapshot_id))["certificate"]["members"]) == 1


async def test_the_end_of_an_earlier_freeze_lets_nobody_go_and_its_words_count_for_nothing(
    service: Service, after_the_clone: Arrange
) -> None:
    """What a slow executor, or a slow agent, still sends about freeze 1 while freeze 2 holds."""
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    (session,) = await service.sessions()
    cgroup = await service.cgroup()
    await service.snapshot()

    async def late_words() -> None:
        async with service.platform.pool.acquire() as connection:
            await freezes.close(connection, service.workspace_id, 1, "late")  # pyright: ignore[reportArgumentType]
            assert not await freezes.hold(connection, service.workspace_id, 1, 60)  # pyright: ignore[reportArgumentType]
        for word in (
            {"kind": "frozen", "freeze": 1, "token": "old", "flush": "ok"},
            {"kind": "still_frozen", "freeze": 1, "token": "old"},
            {"kind": "refused", "freeze": 1, "reason": "late"},
            {"kind": "still_frozen", "freeze": 2, "token": "early"},
        ):
            answer = await service.client.post(f"/v1/sessions/{session['id']}/acks", json=word)
            assert (answer.status_code, answer.json()["code"]) == (409, "FREEZE_STALE")
        await asyncio.sleep(0.2)
        assert "frozen 1" in (cgroup / "cgroup.events").read_text()

    after_the_clone(late_words)
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert (await service.document(snapshot_id))["certificate"]["freeze"] == 2
    assert await service.attempts_failed() == []
