"""`wvsctl agent run` with ordinary programs: what they see, and what their caller sees."""

import asyncio
import os
import pty
import shlex
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Service, Wrapped, until
from tests.skips import not_installed

from wvs.domain.states import TaskState

LATE = """
import asyncio, pathlib, sys
from wvs.agent import wrapper

real, (url, name, go, gone) = wrapper.wait_for_first, sys.argv[1:]

async def late(*awaited):
    await real(*awaited)
    while not pathlib.Path(go).exists():
        await asyncio.sleep(0.01)
    pathlib.Path(gone).touch()

wrapper.wait_for_first = late
argv = ["sh", "-c", "echo ready; exit 3"]
assignment = wrapper.Assignment(url=url, workspace=name, argv=argv, agent="a", report=print)
sys.exit(asyncio.run(wrapper.run_command(assignment)))
"""
"""`wvsctl agent run` on a busy host: it starts its command long after the session began."""


async def test_a_program_runs_in_the_live_tree_and_its_exit_code_is_returned(service: Service) -> None:
    script = 'echo "$PWD"; echo "$WVS_WORKSPACE $WVS_LIVE"; echo "$1" >&2; exit 7'
    wrapped = await service.run("sh", "-c", script, "sh", "--json")
    code, out, err = await wrapped.ended()
    assert code == 7
    assert out.splitlines() == [str(service.live.resolve()), f"{service.name} {service.live}"]
    assert err == "--json\n"
    assert await service.sessions() == []


@pytest.mark.parametrize(
    ("argv", "code"), [(("sh", "-c", "kill -KILL $$"), 137), (("no-such-program",), 127), (("/etc/passwd",), 126)]
)
async def test_signals_and_failed_starts_have_the_exit_codes_of_a_shell(
    service: Service, argv: tuple[str, ...], code: int
) -> None:
    wrapped = await service.run(*argv)
    assert (await wrapped.ended())[0] == code
    assert await service.sessions() == []


async def test_a_signal_reaches_the_program_and_its_remaining_processes_are_killed(service: Service) -> None:
    script = 'trap "echo got it; exit 3" TERM; setsid sleep 1000 & echo ready; while true; do sleep 0.05; done'
    wrapped = await service.shell(script)
    assert await wrapped.line() == "ready"
    cgroup = await service.cgroup()
    assert len((cgroup / "cgroup.procs").read_text().split()) >= 2
    wrapped.process.send_signal(signal.SIGTERM)
    code, out, _ = await wrapped.ended()
    assert (code, out) == (3, "got it\n")
    assert not cgroup.exists()


async def test_an_unmodified_program_is_frozen_for_a_snapshot_and_its_session_is_in_the_certificate(
    service: Service,
) -> None:
    wrapped = await service.shell("i=0; echo ready; while true; do i=$((i+1)); echo $i > a; done")
    await wrapped.line()
    (session,) = await service.sessions()
    assert session["pid"] == wrapped.process.pid
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    certificate = (await service.document(snapshot_id))["certificate"]
    (member,) = certificate["members"]
    assert member["session_id"] == session["id"]
    assert member["flush"] == "ok"
    before = (service.live / "a").read_text()
    await until(lambda: (service.live / "a").read_text() not in ("", before))
    later_id, _ = await service.snapshot()
    (later,) = (await service.document(later_id))["certificate"]["members"]
    assert later["token"] != member["token"]


async def test_a_freeze_between_registration_and_start_delays_only_the_start(
    service: Service, tmp_path: Path, after_the_clone: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    go, gone = tmp_path / "go", tmp_path / "gone"
    arguments = (sys.executable, "-c", LATE, service.url, service.name, str(go), str(gone))
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    wrapped = Wrapped(process)
    service.wrapped.append(wrapped)
    async with asyncio.timeout(60):
        while not await service.sessions():
            await asyncio.sleep(0.05)

    async def start_during_the_freeze() -> None:
        go.touch()
        await until(gone.exists)
        await asyncio.sleep(0.3)

    after_the_clone(start_during_the_freeze)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert await service.attempts_failed() == []
    assert await wrapped.line() == "ready"
    assert (await wrapped.ended())[0] == 3


async def test_the_certificate_names_a_cooperative_wrapper(service: Service) -> None:
    script = "i=0; echo ready; while true; do i=$((i+1)); echo $i > a; done"
    wrapped = await service.shell(script, "--cooperative")
    await wrapped.line()
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    (member,) = (await service.document(snapshot_id))["certificate"]["members"]
    assert member["flush"] == "ok (cooperative: stopped by SIGSTOP, not held by the kernel)"
    wrapped.process.terminate()
    assert (await wrapped.ended())[0] == 128 + signal.SIGTERM


async def test_an_eviction_ends_the_program(service: Service) -> None:
    wrapped = await service.shell('trap "echo leaving; exit 0" TERM; echo ready; while true; do sleep 0.05; done')
    await wrapped.line()
    (session,) = await service.sessions()
    assert (await service.evict(session["id"]))["state"] == "evicted"
    code, out, err = await wrapped.ended()
    assert (code, out) == (0, "leaving\n")
    assert "the session was ended: the test says so" in err


async def test_the_program_gets_the_terminal_and_only_it_gets_the_keys(service: Service) -> None:
    script = 'trap "echo interrupted; exit 5" INT; test -t 0 && echo terminal; while true; do sleep 0.05; done'
    arguments = [
        "-m",
        "wvs.cli.wvsctl",
        "--url",
        service.url,
        "agent",
        "run",
        "-w",
        service.name,
        "--",
        "sh",
        "-c",
        script,
    ]
    pid, terminal = await asyncio.to_thread(_forked, [sys.executable, *arguments])
    seen = b""
    loop = asyncio.get_running_loop()
    while b"terminal" not in seen:
        seen += await asyncio.wait_for(loop.run_in_executor(None, os.read, terminal, 4096), 20)
    os.write(terminal, b"\x03")
    try:
        while chunk := await asyncio.wait_for(loop.run_in_executor(None, os.read, terminal, 4096), 20):
            seen += chunk
    except OSError:
        pass  # EIO: no process has the terminal open
    os.close(terminal)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5, seen
    assert seen.count(b"interrupted") == 1


async def test_ctrl_z_stops_program_and_wrapper_and_both_continue(service: Service) -> None:
    script = "echo ready; i=0; while true; do i=$((i+1)); echo $i > a; sleep 0.01; done"
    arguments = ["-m", "wvs.cli.wvsctl", "--url", service.url, "agent", "run", "-w", service.name]
    pid, terminal = await asyncio.to_thread(_forked, [sys.executable, *arguments, "--", "sh", "-c", script])
    seen, loop = b"", asyncio.get_running_loop()
    while b"ready" not in seen:
        seen += await asyncio.wait_for(loop.run_in_executor(None, os.read, terminal, 4096), 60)
    os.write(terminal, b"\x1a")
    _, status = await asyncio.wait_for(loop.run_in_executor(None, os.waitpid, pid, os.WUNTRACED), 60)
    assert os.WIFSTOPPED(status)
    before = (service.live / "a").read_text()
    await asyncio.sleep(0.2)
    assert (service.live / "a").read_text() == before
    os.kill(pid, signal.SIGCONT)
    await until(lambda: (service.live / "a").read_text() not in ("", before))
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    os.write(terminal, b"\x03")
    _, status = await asyncio.wait_for(loop.run_in_executor(None, os.waitpid, pid, 0), 60)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGINT


@pytest.mark.skipif(shutil.which("bash") is None, reason=not_installed("bash"))
async def test_bg_continues_the_program_in_the_background(service: Service) -> None:
    script = "echo rea''dy; i=0; while true; do i=$((i+1)); echo $i > a; sleep 0.01; done"
    run = [sys.executable, "-m", "wvs.cli.wvsctl", "--url", service.url, "agent", "run", "-w", service.name]
    pid, terminal = await asyncio.to_thread(
        _forked, ["env", "LC_ALL=C", "PS1=bash-> ", "bash", "--norc", "--noprofile", "-i"]
    )
    seen, loop = b"", asyncio.get_running_loop()

    async def typed(keys: str, answer: bytes) -> None:
        nonlocal seen
        seen = b""
        os.write(terminal, keys.encode())
        while answer not in seen:
            seen += await asyncio.wait_for(loop.run_in_executor(None, os.read, terminal, 4096), 60)

    try:
        await typed(f"{shlex.join([*run, '--', 'sh', '-c', script])}\n", b"ready")
        await typed("\x1a", b"Stopped")
        stopped_at = (service.live / "a").read_text()
        await typed("bg\n", b"&")
        await until(lambda: (service.live / "a").read_text() not in ("", stopped_at))
        await typed("echo the shell says $((40 + 2))\n", b"says 42")
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        await typed("fg\n", b"agent run")
        await typed("\x03", b"bash-")
        await typed("echo it ended with $?\n", b"with 130")
    finally:
        os.write(terminal, b"exit\n")
        await asyncio.to_thread(os.waitpid, pid, 0)
        os.close(terminal)


def _forked(argv: list[str]) -> tuple[int, int]:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(argv[0], argv)
    return pid, terminal


async def test_a_wrong_url_or_workspace_is_an_error_before_the_program_starts(service: Service) -> None:
    code, _, err = await (await service.run("echo", "ran", url="http://127.0.0.1:1")).ended()
    assert code == 1
    assert "cannot register at http://127.0.0.1:1" in err
    service.name = "no-such-workspace"
    code, out, err = await (await service.run("echo", "ran")).ended()
    assert (code, out) == (3, "")
    assert "WORKSPACE_NOT_FOUND" in err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
async def test_closed_descriptors_stay_closed_for_the_program(closed: str, service: Service, tmp_path: Path) -> None:
    found = tmp_path / "found"
    look = f"for n in 0 1 2; do [ -e /proc/$$/fd/$n ] && echo $n; done > {found}; exit 9"
    argv = [sys.executable, "-m", "wvs.cli.wvsctl", "--url", service.url, "agent", "run", "-w", service.name]
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f'exec "$@" {closed}', "sh", *argv, "--", "sh", "-c", look, stdin=asyncio.subprocess.DEVNULL
    )
    assert await asyncio.wait_for(process.wait(), 60) == 9
    closed_numbers = {"<": "0", ">": "1", "2": "2"}
    left_open = {"0", "1", "2"} - {closed_numbers[word[0]] for word in closed.split()}
    # The redirection of the shell itself uses descriptor 1.
    assert set(found.read_text().split()) | {"1"} == left_open | {"1"}
    assert await service.sessions() == []
