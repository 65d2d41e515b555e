"""`wvsctl agent attach` with containers of a real Docker engine, and with cgroups of others."""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.agent.attaching import (
    COUNTER,
    attach,
    attached,
    bound,
    cgroup_of_others,
    counts_on,
    in_cgroup,
    number_in,
    until_async,
)
from tests.integration.agent.conftest import Service, until
from tests.integration.agent.docker_engine import DockerEngine

from wvs.domain.states import TaskState

ENDED_BY_SIGKILL = 137

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


def counting(engine: DockerEngine, service: Service, *options: str, first: int = 1) -> str:
    (service.live / "n").write_text(f"{first}\n")
    return engine.start("sh", "-c", COUNTER, options=(bound(service.live), "--workdir=/work", *options))


async def test_after_a_switch_the_container_reads_and_writes_the_new_tree(
    engine: DockerEngine, service: Service
) -> None:
    name = counting(engine, service, first=100)
    wrapped = await attached(service, "--container", name, "--runtime", "docker")
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


async def test_on_switch_exit_kills_the_container_and_exits_with_75(engine: DockerEngine, service: Service) -> None:
    name = counting(engine, service)
    snapshot_id, _ = await service.snapshot()
    wrapped = await attached(service, "--container", name, "--on-switch", "exit")
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    code, _, err = await wrapped.ended()
    assert (code, engine.state(name)["ExitCode"]) == (75, ENDED_BY_SIGKILL)
    assert f"container {name} was ended" in err
    assert await service.sessions() == []


async def test_a_mount_of_the_workspace_follows_a_switch_and_one_of_the_tree_does_not(
    engine: DockerEngine, service: Service
) -> None:
    home = service.platform.home(service.workspace_id)
    follow = f"trap 'cd {home}/current/ && cd \"$(pwd -P)\"; cat n2' HUP; echo ready; while true; do sleep 0.02; done"
    workdir = f"--workdir={service.live.resolve()}"
    name = engine.start("sh", "-c", follow, options=(bound(home, str(home)), workdir))
    beside = engine.start("sleep", "1000", options=(bound(service.live), "--workdir=/work"))
    (service.live / "n2").write_text("of the snapshot\n")
    snapshot_id, _ = await service.snapshot()
    run = engine.state(name)["Pid"]
    refused = await attach(service, "--container", beside, "--on-switch", "signal:HUP")
    code, _, err = await refused.ended()
    assert code == 1
    assert "mount of the live tree itself at /work" in err
    await attached(service, "--container", name, "--on-switch", "signal:HUP")
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await until(lambda: "of the snapshot" in engine.logs(name))
    assert engine.state(name)["Pid"] == run
    live = service.live.stat().st_ino
    assert Path(f"/proc/{run}/root{home}/current/").stat().st_ino == live
    assert Path(f"/proc/{engine.state(beside)['Pid']}/root/work").stat().st_ino != live
    stale = await attach(service, "--container", beside)
    code, _, err = await stale.ended()
    assert code == 1
    assert "its mount at /work is of a tree that is not live any more" in err
    assert len(await service.sessions()) == 1


async def test_a_container_restarted_by_others_during_a_freeze_breaks_it(
    engine: DockerEngine, service: Service, after_the_clone: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    name = counting(engine, service)
    await attached(service, "--container", name)

    async def restart() -> None:
        await asyncio.to_thread(engine.docker, "restart", "--time", "0", name)

    after_the_clone(restart)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    assert set(await service.attempts_failed()) <= {"QUIESCE_BROKEN", "QUIESCE_REFUSED"}
    assert (await service.attempts_failed())[0] == "QUIESCE_BROKEN"
    await counts_on(service.live / "n")


async def test_a_container_restarted_by_others_stays_attached(engine: DockerEngine, service: Service) -> None:
    name = counting(engine, service)
    wrapped = await attached(service, "--container", name)
    (session,) = await service.sessions()
    first, _ = await service.snapshot()
    engine.docker("restart", "--time", "0", name)

    async def is_proven_again() -> bool:
        return (await service.snapshot())[1] is TaskState.SUCCEEDED

    await until_async(is_proven_again)
    assert [one["id"] for one in await service.sessions()] == [session["id"]]
    second, _ = await service.snapshot()
    tokens = [(await service.document(one))["certificate"]["members"][0]["token"] for one in (first, second)]
    assert len(set(tokens)) == 2
    assert wrapped.process.returncode is None


async def test_the_session_ends_with_its_container(engine: DockerEngine, service: Service) -> None:
    script = "trap 'exit 7' TERM; while true; do sleep 0.02; done"
    name = engine.start("sh", "-c", script, options=(bound(service.live),))
    wrapped = await attached(service, "--container", name)
    engine.docker("stop", name)
    code, _, err = await wrapped.ended()
    assert (code, err) == (7, "")
    assert await service.sessions() == []


async def test_an_evicted_session_stops_its_container(engine: DockerEngine, service: Service) -> None:
    name = counting(engine, service, "--restart=always")
    wrapped = await attached(service, "--container", name)
    (session,) = await service.sessions()
    await service.evict(session["id"])
    code, _, err = await wrapped.ended()
    assert code == 1
    assert f"the session was ended: the test says so; stopping container {name}" in err
    assert not engine.state(name)["Running"]


async def test_a_paused_container_refuses_the_freeze_and_stays_paused(
    short_freezes: None, engine: DockerEngine, service: Service
) -> None:
    name = counting(engine, service)
    await attached(service, "--container", name)
    engine.docker("pause", name)
    _, state = await service.snapshot()
    assert state is TaskState.FAILED
    assert f"docker unpause {name}" in str(await service.failure())
    assert engine.state(name)["Paused"]
    engine.docker("unpause", name)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


async def test_a_container_paused_during_a_freeze_stays_paused(
    engine: DockerEngine, service: Service, after_the_clone: Callable[[Callable[[], Awaitable[None]]], None]
) -> None:
    name = counting(engine, service)
    await attached(service, "--container", name)

    async def pause() -> None:
        await asyncio.to_thread(engine.docker, "pause", name)

    after_the_clone(pause)
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    before = number_in(service.live / "n")
    await asyncio.sleep(0.2)
    assert number_in(service.live / "n") == before
    assert engine.state(name)["Paused"]
    engine.docker("unpause", name)
    await counts_on(service.live / "n")


async def test_a_killed_attach_leaves_no_container_frozen(
    short_freezes: None,
    engine: DockerEngine,
    service: Service,
    after_the_clone: Callable[[Callable[[], Awaitable[None]]], None],
) -> None:
    name = counting(engine, service)
    wrapped = await attached(service, "--container", name)
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


async def test_the_v1_freezer_holds_a_container(engine: DockerEngine, service: Service) -> None:
    """On a host whose cgroup v2 is not mounted."""
    unified = Path("/sys/fs/cgroup/unified")
    if not unified.is_dir():
        pytest.skip("no cgroup can be used here: the cgroup v1 freezer is not mounted")
    without_v2 = ("unshare", "--mount", "sh", "-c", f'umount {unified} && exec "$@"', "sh")
    name = counting(engine, service)
    await attached(service, "--container", name, before=without_v2)
    for _ in range(3):
        await counts_on(service.live / "n")
        snapshot_id, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
    assert len((await service.document(snapshot_id))["certificate"]["members"]) == 1


async def test_each_refusal_says_what_to_do(engine: DockerEngine, service: Service, tmp_path: Path) -> None:
    unmounted = engine.start("sleep", "1000")
    removed = engine.start("sleep", "1000", options=("--rm", bound(service.live)))
    stopped = engine.start("true", options=(bound(service.live),))
    await until(lambda: not engine.state(stopped)["Running"])
    (tmp_path / "docker").symlink_to(str(shutil.which("docker")))
    no_daemon = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nothing"}
    cases: tuple[tuple[tuple[str, ...], dict[str, Any], str], ...] = (
        (("--container", "wvs-absent"), {}, "wvs-absent"),
        (("--container", stopped), {}, f"does not run (it is exited); start it with: docker start {stopped}"),
        (("--container", unmounted), {}, "it has no mount of the live tree; start it with --mount type=bind,source="),
        (("--container", removed), {}, "was started with --rm"),
        (("--container", unmounted), {"env": {**os.environ, "PATH": "/nowhere"}}, "no docker or podman on PATH"),
        (
            ("--container", unmounted, "--runtime", "podman"),
            {"env": {**os.environ, "PATH": str(tmp_path)}},
            "no podman",
        ),
        (("--container", unmounted), {"env": no_daemon}, f"{tmp_path}/nothing"),
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


async def test_a_cgroup_of_others_is_frozen_and_ends_at_a_switch(service: Service) -> None:
    with cgroup_of_others() as cgroup:
        (service.live / "n").write_text("1\n")
        await in_cgroup(cgroup, "sh", "-c", COUNTER, cwd=service.live)
        wrapped = await attached(service, "--cgroup", str(cgroup))
        for _ in range(3):
            await counts_on(service.live / "n")
            snapshot_id, state = await service.snapshot()
            assert state is TaskState.SUCCEEDED
        assert await service.attempts_failed() == []
        assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
        code, _, err = await wrapped.ended()
        assert code == 75
        assert f"cgroup {cgroup} was ended" in err
        assert (cgroup / "cgroup.procs").read_text() == ""
    assert await service.sessions() == []


async def test_the_session_of_a_cgroup_ends_with_its_last_process(service: Service) -> None:
    wait_for = "while [ ! -e {} ]; do sleep 0.02; done"
    with cgroup_of_others() as cgroup:
        script = f"({wait_for.format('second')}) & {wait_for.format('first')}"
        first = await in_cgroup(cgroup, "sh", "-c", script, cwd=service.live)
        wrapped = await attached(service, "--cgroup", str(cgroup))
        (service.live / "first").touch()
        await first.wait()
        _, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        assert len(await service.sessions()) == 1
        (service.live / "second").touch()
        code, _, _ = await wrapped.ended()
        assert code == 0
    assert await service.sessions() == []


async def test_a_cgroup_is_refused_in_words_that_help(service: Service) -> None:
    with cgroup_of_others() as cgroup:
        inside = ("sh", "-c", f'echo 0 > {cgroup}/cgroup.procs && exec "$@"', "sh")
        cases = (
            (("--cgroup", str(cgroup)), (), "has no process"),
            (("--cgroup", str(cgroup)), inside, "start it outside"),
            (("--cgroup", str(cgroup), "--on-switch", "restart"), inside, "start it outside"),
            (("--cgroup", str(cgroup.parent)), (), "has no cgroup.freeze: the root cgroup"),
        )
        for options, before, words in cases:
            code, _, err = await (await attach(service, *options, before=before)).ended()
            assert code == 1
            assert words in err
        await in_cgroup(cgroup, "sleep", "1000", cwd=service.live)
        wrapped = await attach(service, "--cgroup", str(cgroup), "--on-switch", "restart")
        code, _, err = await wrapped.ended()
        assert code == 1
        assert "use --on-switch exit or signal:NAME" in err
    assert await service.sessions() == []
