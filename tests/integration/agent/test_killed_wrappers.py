"""The session of a killed wrapper ends when its cgroup is proven empty, and not before."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.agent.conftest import Service, Wrapped, cgroups_of, clear, guardians, until
from tests.integration.agent.cutting import Network
from tests.integration.agent.test_guardian import kill_wrapper, state_of, until_ended
from tests.skips import need_program, need_root

from wvs.domain.states import TaskState

SEVERAL_LOOKS_S = 2.0
WAITING = "(while [ ! -e stop ]; do sleep 0.02; done) & echo ready; wait"

FORKS_LATE = """
import os, sys, time
from wvs.agent import cgroup_freezer, wrapper

real, (url, name, forked, go) = cgroup_freezer.CgroupV2Freezer.enter, sys.argv[1:]

def enter(self):
    with open(forked + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(forked + ".new", forked)
    while not os.path.exists(go):
        time.sleep(0.01)
    real(self)

cgroup_freezer.CgroupV2Freezer.enter = enter
argv = ["sh", "-c", "echo it ran > ran"]
assignment = wrapper.Assignment(url=url, workspace=name, argv=argv, agent="a", report=print)
import asyncio
import contextlib
asyncio.run(wrapper.run_command(assignment))
"""
"""`wvsctl agent run` whose command has been forked, and has not joined its cgroup yet."""


def pids_in(cgroup: Path) -> list[int]:
    """The processes of the cgroup now: the command starts new ones all the time."""
    try:
        return [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]
    except FileNotFoundError:
        return []


async def test_the_session_ends_when_the_last_process_has_ended(short_freezes: None, service: Service) -> None:
    wrapped = await service.shell(WAITING)
    await wrapped.line()
    (session,) = await service.sessions()
    await kill_wrapper(wrapped)
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    assert (await service.failure())["code"] == "QUIESCE_TIMEOUT"
    assert await state_of(service, session["id"]) == "active"
    (service.live / "stop").touch()
    await until_ended(service, session["id"])


async def test_the_session_ends_when_all_processes_are_killed(service: Service) -> None:
    """As by the kernel when memory is short."""
    wrapped = await service.shell(WAITING)
    await wrapped.line()
    (session,) = await service.sessions()
    cgroup = await service.cgroup()
    os.kill(wrapped.process.pid, signal.SIGKILL)
    while pids := pids_in(cgroup):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await until_ended(service, session["id"])


async def test_a_process_in_a_cgroup_below_keeps_the_session(service: Service) -> None:
    wrapped = await service.shell(WAITING)
    await wrapped.line()
    (session,) = await service.sessions()
    cgroup = await service.cgroup()
    below, empty = cgroup / "below", cgroup / "empty"
    empty.mkdir()
    below.mkdir()
    while pids := pids_in(cgroup):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (below / "cgroup.procs").write_text(str(pid))
    await kill_wrapper(wrapped)
    await asyncio.sleep(SEVERAL_LOOKS_S)
    assert await state_of(service, session["id"]) == "active"
    assert empty.exists(), "it belongs to the command, which lives"
    (service.live / "stop").touch()
    await until_ended(service, session["id"])


async def test_a_cgroup_that_cannot_be_seen_keeps_the_session(service: Service) -> None:
    need_root("a mount namespace")
    need_program("nsenter")
    namespace = (need_program("unshare"), "--mount", "--propagation", "private")
    wrapped = await service.run("sh", "-c", WAITING, below=namespace)
    await wrapped.line()
    (session,) = await service.sessions()
    cgroup = await service.cgroup()
    (guardian,) = guardians(session["id"])
    hide = ("nsenter", "--target", str(guardian), "--mount", "umount", "--recursive", "--lazy", "/sys/fs/cgroup")
    await asyncio.to_thread(subprocess.run, hide, check=True)
    await kill_wrapper(wrapped)
    await asyncio.sleep(SEVERAL_LOOKS_S)
    assert await state_of(service, session["id"]) == "active"
    (service.live / "stop").touch()
    await until(lambda: not (cgroup / "cgroup.procs").read_text())
    await asyncio.sleep(SEVERAL_LOOKS_S)
    assert await state_of(service, session["id"]) == "active", "nobody has removed the cgroup"
    await clear(cgroup)
    await until_ended(service, session["id"])


async def test_a_command_that_was_about_to_join_its_cgroup_does_not_run_after_the_end(
    service: Service, tmp_path: Path
) -> None:
    forked, go = tmp_path / "forked", tmp_path / "go"
    arguments = ("-c", FORKS_LATE, service.url, service.name, str(forked), str(go))
    wrapped = Wrapped(await asyncio.create_subprocess_exec(sys.executable, *arguments))
    service.wrapped.append(wrapped)
    await until(forked.exists)
    (session,) = await service.sessions()
    command = int(forked.read_text())
    await kill_wrapper(wrapped)
    await asyncio.sleep(SEVERAL_LOOKS_S)
    is_active = await state_of(service, session["id"]) == "active"
    go.touch()
    await until(lambda: not Path(f"/proc/{command}").exists())
    assert is_active or not (service.live / "ran").exists(), "it ran without a session"
    await until_ended(service, session["id"])


async def test_the_guardian_tries_until_the_service_answers(service: Service) -> None:
    network = Network(service.url)
    async with network.running():
        wrapped = await service.shell(WAITING, url=network.url)
        await wrapped.line()
        (session,) = await service.sessions()
    await kill_wrapper(wrapped)
    (service.live / "stop").touch()
    await until(lambda: cgroups_of(session["id"]) == [])
    await asyncio.sleep(SEVERAL_LOOKS_S)
    assert await state_of(service, session["id"]) == "active"
    async with network.running():
        await until_ended(service, session["id"])


async def test_an_eviction_ends_the_guardian_of_a_killed_wrapper(service: Service) -> None:
    wrapped = await service.shell(WAITING)
    await wrapped.line()
    (session,) = await service.sessions()
    await kill_wrapper(wrapped)
    await service.evict(session["id"])
    await clear((await asyncio.to_thread(cgroups_of, session["id"]))[0])
    await until(lambda: not guardians(session["id"]))
    assert await state_of(service, session["id"]) == "evicted"
