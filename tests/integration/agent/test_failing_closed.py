"""Agents that do not freeze, as real processes: nothing is published, and the error names the session."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.agent.conftest import PATIENCE_S, Service, clear, guardians, until, until_lease_renewed
from tests.integration.agent.cutting import Network

from wvs.agent import CannotFreeze, Unreachable, register
from wvs.agent.freeze_state import GRACE_S
from wvs.agent.hooks import Hooks, do_nothing
from wvs.agent.registration import open_session
from wvs.agent.transport import AgentTransport
from wvs.domain.errors import Refused
from wvs.domain.ids import SESSION, parse_id
from wvs.domain.states import TaskState
from wvs.quiesce import freezes
from wvs.quiesce.ack_batches import AckKind, Acknowledgement
from wvs.quiesce.sessions import Sessions

WRITING = "i=0; echo ready; while true; do i=$((i+1)); echo $i > a; done"
Arrange = Callable[[Callable[[], Awaitable[None]]], None]


async def writes_on(file: Path) -> None:
    await until(file.exists)
    before = file.read_text()
    await until(lambda: file.read_text() not in ("", before))


async def test_the_error_names_an_agent_that_refuses_and_its_reason(service: Service) -> None:
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


async def test_a_reason_that_is_no_valid_text_is_reported_and_the_session_continues(service: Service) -> None:
    """File names are bytes."""
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


async def test_a_refusal_is_repeated_if_it_was_lost(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service learns of it at once and does not wait for the end of the budget."""
    reasons: list[str] = []
    real = AgentTransport.call

    async def lossy(self: AgentTransport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        if body is not None and body.get("kind") == "refused":
            reasons.append(body["reason"])
            if len(reasons) == 1:
                raise Unreachable("lost on its way")
        return await real(self, method, path, answer, body)

    async def on_freeze() -> None:
        raise CannotFreeze("in the middle of a payment")

    monkeypatch.setattr(AgentTransport, "call", lossy)
    async with await register(service.url, service.name, agent="payer", on_freeze=on_freeze):
        _, state = await service.snapshot()
        assert state is TaskState.FAILED
        assert (await service.failure())["code"] == "QUIESCE_REFUSED"
    assert reasons == ["in the middle of a payment"] * 2


async def test_the_error_names_a_stopped_wrapper_which_works_again_when_it_continues(
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
    await until_lease_renewed(service, stopped["id"])
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    await writes_on(service.live / "a")


async def test_a_killed_wrapper_blocks_freezes_until_its_processes_have_ended(
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
    await until(lambda: not guardians(session["id"]))  # it has ended the session
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


async def test_an_agent_without_network_resumes_by_itself_and_its_token_is_void(
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
        assert state is TaskState.FAILED  # broken first; the retry gets no answer
        assert "QUIESCE_BROKEN" in await service.attempts_failed()
        assert (await service.failure())["code"] == "QUIESCE_TIMEOUT"
        await writes_on(service.live / "a")
        assert time.monotonic() - cut_off < PATIENCE_S
        network.up.set()
        await until_lease_renewed(service)
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        wrapped.process.terminate()
        await wrapped.ended()


async def test_a_late_answer_does_not_prolong_a_freeze(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It contains the seconds that were left when it was sent."""
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


async def test_without_the_service_a_program_whose_tree_was_replaced_restarts_in_the_new_one(
    short_freezes: None, service: Service, after_the_clone: Arrange
) -> None:
    async with Network(service.url).running() as network:
        wrapped = await service.shell('echo "$PWD"; while true; do date > a; done', url=network.url)
        path = await wrapped.line()

        async def put_another_tree_there_and_cut() -> None:
            network.up.clear()
            live = service.live.parent
            live.rename(live.with_name("aside"))
            service.live.mkdir(parents=True)
            (live / "name").write_text("another\n")

        after_the_clone(put_another_tree_there_and_cut)
        await service.snapshot()
        assert await wrapped.line() == path
        await writes_on(service.live / "a")
        network.up.set()
        wrapped.process.terminate()
        await wrapped.ended()


async def test_a_thaw_by_another_process_during_the_clone_discards_it(
    service: Service, after_the_clone: Arrange
) -> None:
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    cgroup = await service.cgroup()

    async def thaw() -> None:
        (cgroup / "cgroup.freeze").write_text("0")
        await writes_on(service.live / "a")

    after_the_clone(thaw)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED  # retried
    assert await service.attempts_failed() == ["QUIESCE_BROKEN"]
    await writes_on(service.live / "a")


async def test_a_thaw_by_another_process_is_noticed_even_if_the_answer_before_was_lost(
    service: Service, after_the_clone: Arrange, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_frozen = asyncio.Event()
    real = AgentTransport.call

    async def lossy(self: AgentTransport, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        answered = await real(self, method, path, answer, body)
        if body is not None and body.get("kind") == "frozen":
            raise Unreachable("the answer was lost on its way")
        return answered

    async def on_freeze() -> None:
        is_frozen.set()

    async def on_thaw() -> None:
        is_frozen.clear()

    async def thaw() -> None:
        is_frozen.clear()
        monkeypatch.setattr(AgentTransport, "call", real)

    after_the_clone(thaw)
    monkeypatch.setattr(AgentTransport, "call", lossy)
    hooks = Hooks(
        on_freeze=on_freeze, on_thaw=on_thaw, on_switch=lambda _tree: on_thaw(), still_frozen=is_frozen.is_set
    )
    async with await open_session(service.url, service.name, "counter", hooks):
        await service.snapshot()
    assert await service.attempts_failed() == ["QUIESCE_BROKEN"]


async def test_a_program_that_registers_during_a_freeze_starts_after_it(
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


async def test_late_messages_about_an_earlier_freeze_have_no_effect(service: Service, after_the_clone: Arrange) -> None:
    """A slow executor and a slow agent send messages about freeze 1 while freeze 2 holds."""
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    (session,) = await service.sessions()
    cgroup = await service.cgroup()
    await service.snapshot()

    async def late_messages() -> None:
        async with service.platform.pool.acquire() as connection:
            await freezes.close(connection, service.workspace_id, 1, "late")  # pyright: ignore[reportArgumentType]
            assert not await freezes.hold(connection, service.workspace_id, 1, 60)  # pyright: ignore[reportArgumentType]
        registry = Sessions(service.platform.pool)
        for ack in (
            Acknowledgement(AckKind.FROZEN, 1, "old", "ok"),
            Acknowledgement(AckKind.STILL_FROZEN, 1, "old"),
            Acknowledgement(AckKind.REFUSED, 1, reason="late"),
            Acknowledgement(AckKind.STILL_FROZEN, 2, "early"),
        ):
            with pytest.raises(Refused, match="FREEZE_STALE"):
                await registry.acknowledge(parse_id(SESSION, session["id"]), ack)
        await asyncio.sleep(0.2)
        assert "frozen 1" in (cgroup / "cgroup.events").read_text()

    after_the_clone(late_messages)
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert (await service.document(snapshot_id))["certificate"]["freeze"] == 2
    assert await service.attempts_failed() == []
