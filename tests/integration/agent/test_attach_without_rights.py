"""`wvsctl agent attach` for a user who lacks a right: it says which one, and the command that has it."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.integration.agent.attaching import COUNTER, attach, bound, cgroup_of_others, counts_on, in_cgroup
from tests.integration.agent.conftest import Service
from tests.integration.agent.container_engine import ContainerEngine
from tests.skips import need_root

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@contextlib.contextmanager
def owned_by_nobody(*paths: Path) -> Generator[None]:
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    yield
    for path in paths:
        if path.exists():
            os.chown(path, 0, 0)


async def refusal_for_nobody(service: Service, *options: str) -> str:
    """What attach says to a user who is not root."""
    need_root("becoming another user")
    refused = await attach(service, *options, before=AS_NOBODY)
    code, _, err = await refused.ended()
    assert code == 1, err
    assert await service.sessions() == []
    assert f"sudo wvsctl agent attach -w {service.name} {' '.join(options)}" in err
    return err


async def test_a_user_without_the_right_to_a_cgroup_is_refused_with_the_command_that_helps(
    service: Service,
) -> None:
    with cgroup_of_others() as cgroup:
        await in_cgroup(cgroup, "sleep", "1000", cwd=service.live)
        switch = cgroup / ("freezer.state" if (cgroup / "freezer.state").exists() else "cgroup.freeze")
        said = await refusal_for_nobody(service, "--cgroup", str(cgroup))
        assert f"no right to write to {switch} (Permission denied)" in said
        assert f"uid {NOBODY}" in said
        cgroup.chmod(0o700)
        said = await refusal_for_nobody(service, "--cgroup", str(cgroup))
        assert f"no right to look into {cgroup} (Permission denied)" in said


async def test_without_the_right_to_read_the_mounts_the_refusal_names_the_capability(service: Service) -> None:
    need_root("giving up a capability")
    with cgroup_of_others() as cgroup:
        process = await in_cgroup(cgroup, "sleep", "1000", cwd=service.live)
        refused = await attach(service, "--cgroup", str(cgroup), before=("setpriv", "--bounding-set=-sys_ptrace"))
        code, _, err = await refused.ended()
        assert code == 1
        assert f"no right to read the mounts of cgroup {cgroup} at /proc/{process.pid}/root (Permission denied)" in err
        assert "CAP_SYS_PTRACE" in err
    assert await service.sessions() == []


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
async def test_a_user_without_the_right_to_a_container_is_refused_with_the_command_that_helps(
    engine: ContainerEngine, service: Service
) -> None:
    (service.live / "n").write_text("1\n")
    name = engine.start("sh", "-c", COUNTER, options=(bound(service.live), "--workdir=/work"))
    socket = Path(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    said = await refusal_for_nobody(service, "--container", name)
    assert "ermission denied" in said
    assert f"if this user (uid {NOBODY}) has no right to the runtime's socket: sudo" in said
    with reachable_for_nobody(socket):
        said = await refusal_for_nobody(service, "--container", name)
    assert f"container {name}: no right to write to /sys/fs/cgroup/" in said
    await counts_on(service.live / "n")


@contextlib.contextmanager
def reachable_for_nobody(socket: Path) -> Generator[None]:
    """The socket as a member of the group docker has it."""
    closed = [place for place in socket.parents if place.stat().st_mode & 0o001 == 0]
    for place in closed:
        place.chmod(place.stat().st_mode | 0o001)
    with owned_by_nobody(socket):
        yield
    for place in closed:
        place.chmod(place.stat().st_mode & ~0o001)
