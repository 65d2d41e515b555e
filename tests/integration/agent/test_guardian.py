"""A wrapper is killed or stopped while its command is frozen: the guardian thaws the command in time."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.integration.agent.conftest import (
    PATIENCE_S,
    SHORT_BUDGET_S,
    Service,
    Wrapped,
    cgroups_of,
    clear,
    guardians,
    until,
    until_lease_renewed,
)

from wvs.agent.cgroup_freezer import kernel_freezer
from wvs.agent.freeze_state import GRACE_S
from wvs.agent.protocol import Tree
from wvs.domain.states import TaskState

WRITING = 'echo "$PWD"; i=0; while true; do i=$((i+1)); echo $i > a; done'
SLACK_S = 20.0
Arrange = Callable[[Callable[[], Awaitable[None]]], None]


async def writes_on(file: Path) -> None:
    await until(file.exists)
    before = file.read_text()
    await until(lambda: file.read_text() not in ("", before))


async def kill_wrapper(wrapped: Wrapped) -> None:
    wrapped.process.kill()
    await until(lambda: wrapped.process.returncode is not None)


async def until_ended(service: Service, session: str) -> None:
    """Waits until the guardian has ended the session of a killed wrapper. The workspace must be usable at once."""
    async with asyncio.timeout(PATIENCE_S):
        while await state_of(service, session) == "active":
            await asyncio.sleep(0.05)
    assert await state_of(service, session) == "ended"
    assert cgroups_of(session) == []
    await until(lambda: not guardians(session))
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


async def settle(service: Service, session: str, cgroup: Path) -> None:
    """What a person does, see docs/agents.md: the guardian does the rest."""
    await clear(cgroup)
    await until_ended(service, session)


async def state_of(service: Service, session: str) -> str:
    return next(s["state"] for s in await service.sessions(ended=True) if s["id"] == session)


async def test_a_frozen_command_whose_wrapper_is_killed_resumes_and_nothing_is_published(
    short_freezes: None, service: Service, after_the_clone: Arrange
) -> None:
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    (session,) = await service.sessions()
    cgroup = await service.cgroup()
    killed: list[float] = []

    async def kill() -> None:
        assert "frozen 1" in (cgroup / "cgroup.events").read_text()
        await kill_wrapper(wrapped)
        killed.append(time.monotonic())

    after_the_clone(kill)
    trees = service.platform.trees(service.workspace_id)
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    assert "QUIESCE_BROKEN" in await service.attempts_failed()
    error = await service.failure()
    assert error["code"] == "QUIESCE_TIMEOUT"
    assert session["id"] in error["detail"]
    await writes_on(service.live / "a")
    assert time.monotonic() - killed[0] < SHORT_BUDGET_S + GRACE_S + SLACK_S
    await until(lambda: service.platform.trees(service.workspace_id) == trees)
    await settle(service, session["id"], cgroup)


async def test_a_frozen_command_whose_wrapper_is_killed_is_killed_if_its_tree_was_replaced(
    short_freezes: None, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    (service.live / "a").write_text("kept\n")
    snapshot_id, _ = await service.snapshot()
    wrapped = await service.shell(WRITING)
    old = Path(await wrapped.line())
    await writes_on(old / "a")
    (session,) = await service.sessions()
    monkeypatch.setattr("wvs.executor.operations.try_to_bring_live", _killing(service, wrapped))
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await until_ended(service, session["id"])
    assert (service.live / "a").read_text() == "kept\n"
    assert old == service.live, "the path is the same"


async def test_a_frozen_command_lives_on_if_something_else_than_a_tree_took_its_place(
    short_freezes: None, service: Service, after_the_clone: Arrange
) -> None:
    """No live tree was replaced: somebody moved the directory away and made another one there."""
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    aside = service.live.parent.with_name("aside")
    (session,) = await service.sessions()
    cgroup = await service.cgroup()

    async def kill_and_replace() -> None:
        await kill_wrapper(wrapped)
        service.live.parent.rename(aside)
        service.live.parent.mkdir()

    after_the_clone(kill_and_replace)
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    await until(lambda: "frozen 0" in (cgroup / "cgroup.events").read_text())
    await writes_on(aside / "root" / "a")
    service.live.parent.rmdir()
    aside.rename(service.live.parent)
    await settle(service, session["id"], cgroup)


def _killing(service: Service, wrapped: Wrapped) -> Callable[..., Awaitable[None]]:
    """Kills the wrapper before the link of the replaced live tree moves, so that the wrapper never learns of it."""
    from wvs.executor.switching import try_to_bring_live  # noqa: PLC0415

    async def kill_and_follow(*arguments: object) -> None:
        await kill_wrapper(wrapped)
        await try_to_bring_live(*arguments)  # pyright: ignore[reportArgumentType]

    return kill_and_follow


async def test_a_frozen_command_whose_wrapper_is_stopped_resumes(
    short_freezes: None, service: Service, after_the_clone: Arrange
) -> None:
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    (session,) = await service.sessions()

    async def stop() -> None:
        wrapped.process.send_signal(signal.SIGSTOP)

    after_the_clone(stop)
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    assert session["id"] in (await service.failure())["detail"]
    await writes_on(service.live / "a")
    wrapped.process.send_signal(signal.SIGCONT)
    await until_lease_renewed(service)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    await writes_on(service.live / "a")


async def test_the_guardian_ends_with_its_wrapper(service: Service) -> None:
    wrapped = await service.shell(WRITING)
    await wrapped.line()
    (session,) = await service.sessions()
    ours = guardians(session["id"])
    assert len(ours) == 1
    wrapped.process.terminate()
    await wrapped.ended()
    assert guardians(session["id"]) == []
    assert cgroups_of(session["id"]) == []


async def test_a_guardian_follows_a_deadline_that_moves_in_small_steps(kernel_holds: None, tmp_path: Path) -> None:
    """The guardian waits 2 s longer while the wrapper lives. Steps too small to be sent must not add up beyond that."""
    tree = Tree(str(tmp_path / "live" / "root"), 1, "tree")
    freezer = kernel_freezer(f"wvs-steps-{os.getpid()}")
    guardian = freezer.start_guardian()
    assert guardian is not None
    process = subprocess.Popen(["sleep", "100"], preexec_fn=freezer.enter)  # noqa: ASYNC220 - waited for below
    try:
        deadline = time.monotonic() + 0.5
        guardian.arm(deadline, tree)
        await freezer.freeze()
        while time.monotonic() < deadline - 0.5 + 4:
            await asyncio.sleep(0.05)
            guardian.arm(time.monotonic() + 0.5, tree)
        assert freezer.still_frozen(), "the guardian thawed it during the clone"
        await until(lambda: not freezer.still_frozen(), 20)  # and once the deadline no longer moves
    finally:
        await freezer.kill()
        process.wait()
        guardian.close()
        await freezer.thaw()
        freezer.close()
