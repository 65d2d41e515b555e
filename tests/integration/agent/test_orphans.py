"""Processes of a command whose parents have ended: the wrapper adopts and reaps them, whatever PID 1 does."""

import contextlib
import os
import sys
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Service, until
from tests.integration.agent.servers import postgres_for
from tests.skips import need_program, need_root

from wvs.domain.states import TaskState

ORPHANS = 200
SWITCHES = 4

NEVER_REAPS = """
import os, select, signal, sys
child = os.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
select.select([os.pidfd_open(child)], [], [])
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""PID 1 of many containers: it waits for its own child alone."""


def zombies_below(pid: int) -> list[str]:
    """The children of a process that have ended and are not reaped."""
    found: list[str] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
                found += [child] if state == "Z" else []
    return found


@pytest.mark.parametrize("options", [(), ("--cooperative",)], ids=["cgroup", "cooperative"])
async def test_orphans_leave_no_zombie_and_the_exit_code_stays_that_of_the_command(
    options: tuple[str, ...], service: Service
) -> None:
    script = (
        f"for i in $(seq {ORPHANS}); do (setsid sleep 0.05 &) ; done; "
        "echo started; while [ ! -e stop ]; do (sleep 0.01 &); sleep 0.02; done; exit 7"
    )
    wrapped = await service.shell(script, *options)
    assert await wrapped.line() == "started"
    await until(lambda: len(zombies_below(wrapped.process.pid)) < 5, 10)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    (service.live / "stop").touch()
    assert (await wrapped.ended())[0] == 7


async def test_a_guardian_that_was_killed_is_reaped_and_the_command_runs_on(service: Service) -> None:
    wrapped = await service.shell("echo ready; while [ ! -e stop ]; do sleep 0.02; done; exit 3")
    await wrapped.line()
    (guardian,) = [
        pid
        for pid in map(
            int, Path(f"/proc/{wrapped.process.pid}/task/{wrapped.process.pid}/children").read_text().split()
        )
        if b"guardian_process.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(guardian, 9)
    await until(lambda: not Path(f"/proc/{guardian}").exists(), 10)
    (service.live / "stop").touch()
    assert (await wrapped.ended())[0] == 3


@pytest.mark.parametrize("options", [(), ("--cooperative",)], ids=["cgroup", "cooperative"])
async def test_a_postgres_in_the_tree_starts_again_after_a_switch_where_pid_1_reaps_nobody(
    options: tuple[str, ...], service: Service
) -> None:
    """It refuses to start while a process has the id in its postmaster.pid, and a zombie counts as one."""
    need_root("a PID namespace")
    namespace = (need_program("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child")
    with postgres_for(service) as postgres:
        wrapped = await service.run(
            *("sh", "-c", postgres.script), options=options, below=(*namespace, sys.executable, "-c", NEVER_REAPS)
        )
        assert await wrapped.line() == "up"
        snapshot_id, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        for _ in range(SWITCHES):
            assert (
                await service.platform.set_current(service.workspace_id, snapshot_id, reset=True) is TaskState.SUCCEEDED
            )
            assert await wrapped.line() == "up", postgres.log()
        (service.live / "stop").touch()
        code, _, err = await wrapped.ended()
        assert code == 0, err
