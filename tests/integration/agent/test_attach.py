"""`wvsctl agent attach` with containers of a real Docker engine and of a real podman."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.agent.attaching import (
    COUNTER,
    attach,
    attached,
    bound,
    counts_on,
    number_in,
    until_async,
)
from tests.integration.agent.conftest import Service, Wrapped, until
from tests.integration.agent.container_engine import ContainerEngine
from tests.integration.agent.writing import __file__ as program
from tests.integration.agent.writing import broken

from wvs.agent.containers import RUNTIMES
from wvs.domain.states import TaskState

ENDED_BY_SIGKILL = 137
EXITS_WITH_7 = "trap 'exit 7' TERM; while true; do sleep 0.02; done"

FOLLOWS_THE_LINK = """
import os, signal, sys
def follow(*_):
    os.chdir(sys.argv[1])
    print(open("n2").read())
signal.signal(signal.SIGHUP, follow)
print("ready")
while True:
    signal.pause()
"""


def counting(engine: ContainerEngine, service: Service, *options: str, first: int = 1) -> str:
    (service.live / "n").write_text(f"{first}\n")
    return engine.start("sh", "-c", COUNTER, options=(bound(service.live), "--workdir=/work", *options))


def named(engine: ContainerEngine, name: str) -> tuple[str, ...]:
    return "--container", name, "--runtime", engine.runtime


async def test_snapshots_of_a_busy_container_keep_every_invariant(
    engine: ContainerEngine, service: Service, tmp_path: Path
) -> None:
    name = engine.start(sys.executable, program, options=(bound(service.live), "--workdir=/work"))
    await until(lambda: "ready" in engine.logs(name))
    wrapped = await attached(service, *named(engine, name))
    steps: set[bytes] = set()
    torn: list[str] = []
    snapshot_id = None
    for _ in range(5):
        await asyncio.sleep(0.05)
        snapshot_id, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        tree = await service.tree(snapshot_id)
        torn += broken(tree, tmp_path)
        steps.add((tree / "first").read_bytes())
    assert torn == []
    assert len(steps) == 5, "the container did not run between the snapshots"
    assert await service.attempts_failed() == []
    assert snapshot_id is not None
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await until(lambda: engine.logs(name).count("ready") == 2)
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert broken(await service.tree(snapshot_id), tmp_path) == []
    certificate = (await service.document(snapshot_id))["certificate"]
    (member,) = certificate["members"]
    assert (member["frozen"]["kind"], certificate["bystanders"]["found"]) == ("container", 0)
    assert wrapped.process.returncode is None


async def test_a_process_that_exec_started_is_frozen_too(
    engine: ContainerEngine, service: Service, after_the_clone: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    (service.live / "n").write_text("1\n")
    name = engine.start("sleep", "1000", options=(bound(service.live), "--workdir=/work"))
    engine.call("exec", "--detach", name, "sh", "-c", COUNTER)
    await attached(service, *named(engine, name))
    await counts_on(service.live / "n")
    seen: list[int] = []

    async def look_twice() -> None:
        for _ in range(2):
            seen.append(number_in(service.live / "n"))
            await asyncio.sleep(0.1)

    after_the_clone(look_twice)
    _, state = await service.snapshot()
    assert (state, await service.attempts_failed()) == (TaskState.SUCCEEDED, [])
    assert seen[0] == seen[1]
    await counts_on(service.live / "n")


async def test_after_a_switch_the_container_reads_and_writes_the_new_tree(
    engine: ContainerEngine, service: Service
) -> None:
    name = counting(engine, service, first=100)
    wrapped = await attached(service, *named(engine, name))
    await counts_on(service.live / "n")
    (service.live / "n2").write_text("of the snapshot")
    snapshot_id, _ = await service.snapshot()
    frozen_at = number_in(await service.tree(snapshot_id) / "n")
    (service.live / "n2").unlink()
    run = engine.state(name)["Pid"]
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await until(lambda: engine.state(name)["Pid"] not in (0, run))
    await counts_on(service.live / "n")
    inside = Path(f"/proc/{engine.state(name)['Pid']}/root/work")
    assert inside.stat().st_ino == service.live.stat().st_ino
    assert (inside / "n2").read_text() == "of the snapshot"
    assert [int(line) for line in engine.logs(name).splitlines()][-1] == frozen_at
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    await attach_ends(wrapped.process, signal.SIGTERM)
    assert await service.sessions() == []
    assert engine.state(name)["Running"]


async def attach_ends(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    process.send_signal(number)
    async with asyncio.timeout(30):
        assert await process.wait() == 128 + number


async def test_on_switch_exit_kills_the_container_and_exits_with_75(engine: ContainerEngine, service: Service) -> None:
    name = counting(engine, service)
    wrapped = await attached(service, *named(engine, name), "--on-switch", "exit")
    snapshot_id, _ = await service.snapshot()
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    code, _, err = await wrapped.ended()
    assert (code, engine.state(name)["ExitCode"]) == (75, ENDED_BY_SIGKILL)
    assert f"container {name} was ended" in err
    assert await service.sessions() == []


async def test_a_mount_of_the_workspace_follows_a_switch_and_one_of_the_tree_does_not(
    engine: ContainerEngine, service: Service
) -> None:
    home = service.platform.home(service.workspace_id)
    follow = f"trap 'cd {home}/current/ && cd \"$(pwd -P)\"; cat n2' HUP; echo ready; while true; do sleep 0.02; done"
    workdir = f"--workdir={service.live.resolve()}"
    name = engine.start("sh", "-c", follow, options=(bound(home, str(home)), workdir))
    beside = engine.start("sleep", "1000", options=(bound(service.live), "--workdir=/work"))
    (service.live / "n2").write_text("of the snapshot\n")
    snapshot_id, _ = await service.snapshot()
    run = engine.state(name)["Pid"]
    refused = await attach(service, *named(engine, beside), "--on-switch", "signal:HUP")
    code, _, err = await refused.ended()
    assert code == 1
    assert "mount of the live tree itself at /work" in err
    await attached(service, *named(engine, name), "--on-switch", "signal:HUP")
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await until(lambda: "of the snapshot" in engine.logs(name))
    assert engine.state(name)["Pid"] == run
    live = service.live.stat().st_ino
    assert Path(f"/proc/{run}/root{home}/current/").stat().st_ino == live
    assert Path(f"/proc/{engine.state(beside)['Pid']}/root/work").stat().st_ino != live
    stale = await attach(service, *named(engine, beside))
    code, _, err = await stale.ended()
    assert code == 1
    assert "its mount at /work is of a tree that is not live any more" in err
    assert len(await service.sessions()) == 1


async def test_a_container_restarted_by_others_during_a_freeze_breaks_it(
    engine: ContainerEngine, service: Service, after_the_clone: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    name = counting(engine, service)
    await attached(service, *named(engine, name))

    async def restart() -> None:
        await asyncio.to_thread(engine.call, "restart", "--time", "0", name)

    after_the_clone(restart)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert set(await service.attempts_failed()) <= {"QUIESCE_BROKEN", "QUIESCE_REFUSED"}
    assert (await service.attempts_failed())[0] == "QUIESCE_BROKEN"
    await counts_on(service.live / "n")


async def test_a_container_restarted_by_others_stays_attached(engine: ContainerEngine, service: Service) -> None:
    name = counting(engine, service)
    wrapped = await attached(service, *named(engine, name))
    (session,) = await service.sessions()
    first, _ = await service.snapshot()
    engine.call("restart", "--time", "0", name)

    async def is_proven_again() -> bool:
        return (await service.snapshot())[1] is TaskState.SUCCEEDED

    await until_async(is_proven_again)
    assert [one["id"] for one in await service.sessions()] == [session["id"]]
    second, _ = await service.snapshot()
    tokens = [(await service.document(one))["certificate"]["members"][0]["token"] for one in (first, second)]
    assert len(set(tokens)) == 2
    assert wrapped.process.returncode is None


async def test_the_session_ends_with_its_container(engine: ContainerEngine, service: Service) -> None:
    name = engine.start("sh", "-c", EXITS_WITH_7, options=(bound(service.live),))
    wrapped = await attached(service, *named(engine, name))
    engine.call("stop", name)
    code, _, err = await wrapped.ended()
    assert (code, err) == (7, "")
    assert await service.sessions() == []


async def test_a_container_that_ends_before_attach_looks_at_its_mounts_ends_the_session(
    engine: ContainerEngine, service: Service, after_the_clone: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    """Attach looks when the session counts, which is after an open freeze."""
    name = engine.start("sh", "-c", EXITS_WITH_7, options=(bound(service.live),))
    await attached(service, *named(engine, counting(engine, service)))
    late: list[Wrapped] = []

    async def attach_and_stop() -> None:
        late.append(await attached(service, *named(engine, name)))
        await asyncio.to_thread(engine.call, "stop", name)

    after_the_clone(attach_and_stop)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    code, _, err = await late[0].ended()
    assert (code, err) == (7, "")
    assert len(await service.sessions()) == 1


async def test_an_evicted_session_stops_its_container(engine: ContainerEngine, service: Service) -> None:
    name = counting(engine, service, "--restart=always")
    wrapped = await attached(service, *named(engine, name))
    (session,) = await service.sessions()
    await service.evict(session["id"])
    code, _, err = await wrapped.ended()
    assert code == 1
    assert f"the session was ended: the test says so; stopping container {name}" in err
    assert not engine.state(name)["Running"]


async def test_a_paused_container_refuses_the_freeze_and_stays_paused(
    short_freezes: None, engine: ContainerEngine, service: Service
) -> None:
    name = counting(engine, service)
    await attached(service, *named(engine, name))
    engine.call("pause", name)
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    assert f"{engine.runtime} unpause {name}" in str(await service.failure())
    assert engine.state(name)["Paused"]
    engine.call("unpause", name)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


async def test_a_container_paused_during_a_freeze_stays_paused(
    engine: ContainerEngine, service: Service, after_the_clone: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    name = counting(engine, service)
    await attached(service, *named(engine, name))

    async def pause() -> None:
        await asyncio.to_thread(engine.call, "pause", name)

    after_the_clone(pause)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    before = number_in(service.live / "n")
    await asyncio.sleep(0.2)
    assert number_in(service.live / "n") == before
    assert engine.state(name)["Paused"]
    engine.call("unpause", name)
    await counts_on(service.live / "n")


async def test_a_killed_attach_leaves_no_container_frozen(
    short_freezes: None,
    engine: ContainerEngine,
    service: Service,
    after_the_clone: Callable[[Callable[[], Awaitable[None]]], None],
) -> None:
    name = counting(engine, service)
    wrapped = await attached(service, *named(engine, name))
    (session,) = await service.sessions()

    async def kill() -> None:
        wrapped.process.kill()
        await wrapped.process.wait()
        before = number_in(service.live / "n")
        await asyncio.sleep(0.1)
        assert number_in(service.live / "n") == before, "the container was not frozen"

    after_the_clone(kill)
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    assert session["id"] in str(await service.failure())
    await counts_on(service.live / "n")
    await service.evict(session["id"])


async def test_the_v1_freezer_holds_a_container(engine: ContainerEngine, service: Service) -> None:
    """On a host whose cgroup v2 is not mounted."""
    unified = Path("/sys/fs/cgroup/unified")
    if not unified.is_dir():
        pytest.skip("no cgroup can be used here: the cgroup v1 freezer is not mounted")
    without_v2 = ("unshare", "--mount", "sh", "-c", f'umount {unified} && exec "$@"', "sh")
    name = counting(engine, service)
    await attached(service, *named(engine, name), before=without_v2)
    for _ in range(3):
        await counts_on(service.live / "n")
        snapshot_id, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
    assert len((await service.document(snapshot_id))["certificate"]["members"]) == 1


async def test_each_refusal_says_what_to_do(engine: ContainerEngine, service: Service, tmp_path: Path) -> None:
    unmounted = engine.start("sleep", "1000")
    removed = engine.start("sleep", "1000", options=("--rm", bound(service.live)))
    stopped = engine.start("true", options=(bound(service.live),))
    ended = {"exited", "stopped"}  # podman says "stopped" until it has cleaned up, which it may put off
    await until(lambda: engine.state(stopped)["Status"] in ended)
    (tmp_path / engine.runtime).symlink_to(str(shutil.which(engine.runtime)))
    (missing,) = set(RUNTIMES) - {engine.runtime}
    nothing = f"unix://{tmp_path}/nothing"
    no_daemon = {**os.environ, "DOCKER_HOST": nothing, "CONTAINER_HOST": nothing}
    start = f"start it with: {engine.runtime} start {stopped}"
    cases: tuple[tuple[tuple[str, ...], dict[str, Any], str], ...] = (
        (named(engine, "wvs-absent"), {}, "wvs-absent"),
        (named(engine, stopped), {}, f"); {start}"),
        (named(engine, unmounted), {}, "it has no mount of the live tree; start it with --mount type=bind,source="),
        (named(engine, removed), {}, "was started with --rm"),
        (("--container", unmounted), {"env": {**os.environ, "PATH": "/nowhere"}}, "no docker or podman on PATH"),
        (
            ("--container", unmounted, "--runtime", missing),
            {"env": {**os.environ, "PATH": str(tmp_path)}},
            f"no {missing} on PATH",
        ),
        (named(engine, unmounted), {"env": no_daemon}, f"{tmp_path}/nothing"),
        (("--cgroup", "/sys/fs/cgroup/wvs-absent"), {}, "systemctl show"),
    )
    for options, how, words in cases:
        refused = await attach(service, *options, **how)
        code, _, err = await refused.ended()
        assert code == 1, (options, err)
        assert words in err, options
    for options in ((), ("--container", "a", "--cgroup", "b"), ("--container", "a", "--runtime", "lxc")):
        code, _, _ = await (await attach(service, *options)).ended()
        assert code == 2
    assert await service.sessions() == []
