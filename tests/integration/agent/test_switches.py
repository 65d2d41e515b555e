"""Replacing the live tree of a program that knows nothing of WVS."""

import asyncio
import contextlib
import signal
from uuid import UUID

import pytest
from tests.integration.agent.conftest import Service, until
from tests.integration.agent.cutting import Network

from wvs.application.write_path import Committed
from wvs.domain.commands import Command, FinishSetCurrent
from wvs.domain.states import TaskState
from wvs.executor import operations
from wvs.executor.freeze_driver import Freeze
from wvs.executor.workbench import Job, Workbench

# Reads the number in the tree once, then counts on for ever.
PROGRAM = 'n=$(cat n); echo "$n in $PWD"; while true; do n=$((n+1)); echo $n > n.new && mv n.new n; done'


ENDS_WITHOUT_ITS_FILES = "cat n; i=0; while [ -e n ]; do i=$((i+1)); echo $i > alive; sleep 0.02; done; exit 3"


async def test_a_restarted_program_reads_and_writes_the_new_tree(service: Service) -> None:
    (service.live / "n").write_text("100\n")
    snapshot_id, _ = await service.snapshot()
    (service.live / "n").write_text("9000000\n")
    path, old = service.live, service.platform.live_tree(service.workspace_id)
    assert path.resolve() == path
    wrapped = await service.shell(PROGRAM)
    assert await wrapped.line() == f"9000000 in {path}"
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    assert await wrapped.line() == f"100 in {path}", "getcwd says the same path"
    await until(lambda: int((path / "n").read_text() or 0) > 100)
    assert int((path / "n").read_text()) < 9000000
    assert service.platform.live_tree(service.workspace_id) != old
    assert path.resolve() == path
    assert (await service.sessions())[0]["epoch"] == 2
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


async def test_on_switch_exit_kills_the_program_and_exits_with_75(service: Service) -> None:
    (service.live / "n").write_text("1\n")
    snapshot_id, _ = await service.snapshot()
    wrapped = await service.shell(PROGRAM, "--on-switch", "exit")
    await wrapped.line()
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    code, out, err = await wrapped.ended()
    assert (code, out) == (75, "")
    assert "the live tree was replaced: the command was ended" in err
    assert (service.live / "n").read_text() == "1\n"
    assert await service.sessions() == []


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN], ids=["alone", "below nohup"])
async def test_a_program_may_be_told_of_a_switch_by_a_signal(service: Service, inherited: signal.Handlers) -> None:
    """Also where the signal was ignored when `agent run` began: a shell could not trap it then."""
    snapshot_id, _ = await service.snapshot()
    script = 'trap \'cd "$WVS_LIVE" && cd "$(pwd -P)"; pwd\' HUP; echo ready; while true; do sleep 0.02; done'
    wrapped = await service.run(
        *("sh", "-c", script),
        options=("--on-switch", "signal:HUP"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, inherited),
    )
    await wrapped.line()
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    assert await wrapped.line() == str(service.live.resolve())
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


async def test_an_executor_that_stalls_after_the_confirmation_replaces_no_tree_of_a_running_agent(
    short_freezes: None, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim still holds, but its freeze does not: the agent has resumed in the old tree."""
    (service.live / "n").write_text("100\n")
    snapshot_id, _ = await service.snapshot()
    wrapped = await service.shell(PROGRAM)
    old = service.live.resolve()
    await wrapped.line()
    real, ran_on = operations.execute, False

    async def stall(job: Job, command: Command) -> Committed:
        nonlocal ran_on
        if isinstance(command, FinishSetCurrent) and not ran_on:
            # Like a stopped process: it neither extends the freeze nor learns that this failed.
            await service.platform.pool.execute("UPDATE wvs.freezes SET holds_until = now() WHERE phase <> 'over'")
            before = (old / "n").read_text()
            await until(lambda: (old / "n").read_text() not in ("", before))
            ran_on = True
        return await real(job, command)

    monkeypatch.setattr(operations, "execute", stall)
    monkeypatch.setattr(Freeze, "hold", _never_holds)
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    assert ran_on
    assert await service.attempts_failed() == ["QUIESCE_BROKEN"]
    assert await wrapped.line() == f"100 in {service.live.resolve()}"


async def _never_holds(self: Freeze) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("nonsense", ["signal:NOPE", "restart:HUP"])
async def test_an_invalid_on_switch_is_a_usage_error(service: Service, nonsense: str) -> None:
    wrapped = await service.shell("true", "--on-switch", nonsense)
    code, _, err = await wrapped.ended()
    assert code == 2
    assert nonsense.rpartition(":")[2] in err
    assert await service.sessions(ended=True) == []


async def test_a_program_that_lost_its_files_without_contact_starts_again_in_the_new_tree(
    short_freezes: None, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor stalls between its event and the exchange, and the agent, without contact, resumes meanwhile."""
    (service.live / "n").write_text("100\n")
    snapshot_id, _ = await service.snapshot()
    (service.live / "n").write_text("200\n")
    network, real = Network(service.url), operations.try_to_bring_live
    alive = service.live / "alive"

    async def stall(bench: Workbench, workspace_id: UUID) -> bool:
        await connected.aclose()
        before = alive.read_text()
        await until(lambda: alive.read_text() not in ("", before))
        return await real(bench, workspace_id)

    monkeypatch.setattr(operations, "try_to_bring_live", stall)
    async with contextlib.AsyncExitStack() as connected:
        await connected.enter_async_context(network.running())
        wrapped = await service.shell(ENDS_WITHOUT_ITS_FILES, url=network.url)
        assert await wrapped.line() == "200"
        assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await asyncio.sleep(1)
    assert wrapped.process.returncode is None
    async with network.running():
        assert await wrapped.line() == "100"
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        (service.live / "n").unlink()
        code, _, err = await wrapped.ended()
    assert code == 3
    assert "the command ended (3) as its live tree was replaced" in err
