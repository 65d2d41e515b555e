"""Switch after switch on every engine's own filesystem: nothing is left of the trees, agents and programs before.

`make test` takes fewer where a switch is slow: on JuiceFS, and under an agent. `make freeze` takes WVS_SWITCHES (100)
of each.
"""

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.agent.conftest import Service, cgroups_of, kernel_holds, serving, until
from tests.integration.engines import filesystems
from tests.integration.engines.conftest import Sites
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.integration.executor.campaign import KINDS
from tests.integration.executor.platform import Platform
from tests.integration.executor.processes import ExecutorProcess, Executors

from wvs.domain.states import TaskState
from wvs.engines.base import EngineName
from wvs.engines.mounts import mounts
from wvs.engines.volume.opening import init_volume
from wvs.postgres.pool import Pool

__all__ = ["kernel_holds"]

SWITCHES = int(os.environ.get("WVS_SWITCHES", "100"))
SWITCHES_ON_JUICEFS = int(os.environ.get("WVS_SWITCHES", "20"))
SWITCHES_WITH_AGENT = int(os.environ.get("WVS_SWITCHES", "10"))
TIMEOUT_S = 100 + 5 * SWITCHES
CONTENTS = ("zero", "one")
AGENT = "(setsid sleep 1000 &); cat which; while :; do sleep 1000; done"
"""Says which tree it was started in. One of its processes loses its parent at once."""
ITS_PROCESSES = ["sh", "sleep", "sleep"]


@pytest.fixture(scope="module")
def quick_juicefs(namespace: Namespace) -> Callable[[], Path]:
    """A mount that caches no attributes. A stamp waits until they are dropped, by default for a second."""
    return cache(lambda: filesystems.juicefs(namespace, "quick", "--attr-cache", "0"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def engine(kind: str) -> EngineName:
    return kind.partition("-")[0]  # type: ignore[return-value]


@pytest.fixture
def volume(kind: str, engine: EngineName, sites: Sites, quick_juicefs: Callable[[], Path]) -> Path:
    try:
        directory = quick_juicefs() if engine == "juicefs" else sites.get(kind).directory
    except Unavailable as reason:
        pytest.skip(str(reason))
    volume = directory / uuid.uuid4().hex  # it goes with its filesystem
    init_volume(str(volume), uuid.uuid4(), engine)
    return volume


@pytest.fixture
async def platform(volume: Path, pool: Pool, database_url: str) -> AsyncIterator[Platform]:
    async with Platform(pool, database_url, volume).hinting() as platform:
        yield platform


@pytest.fixture
def executor(platform: Platform, tmp_path: Path) -> Iterator[ExecutorProcess]:
    executors = Executors(platform.url, platform.volume, tmp_path, mounted_here=True)
    yield executors.start(lease_s="30", lease_renew_s="10")
    executors.close()


async def with_two_snapshots(platform: Platform) -> tuple[UUID, list[UUID]]:
    workspace_id = await platform.create()
    snapshots: list[UUID] = []
    for content in CONTENTS:
        (platform.live(workspace_id) / "which").write_text(f"{content}\n")
        snapshots.append(await platform.ready_snapshot(workspace_id))
    return workspace_id, snapshots


def states_below(pid: int) -> dict[int, str]:
    """The state (proc(5)) of every process that descends from `pid`."""
    parents: dict[int, tuple[int, str]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(file.parent.name)] = int(parent), state
    found: dict[int, str] = {}
    above = {pid}
    while above := {child for child, (parent, _) in parents.items() if parent in above}:
        found |= {child: parents[child][1] for child in above}
    return found


def mounted(pid: int) -> set[int]:
    """The ids of all mounts in the process's namespace, which no other program adds to."""
    return {mount.id for mount in mounts(pid)}


async def assert_nothing_left(platform: Platform, workspace_id: UUID, executor: ExecutorProcess) -> None:
    """No tree, no slot, no trash, nothing else in the workspace's directory, and no zombie."""
    await platform.until_swept(workspace_id)
    home = platform.home(workspace_id)
    assert {entry.name for entry in home.iterdir()} == {"current", "live", "switch", "trees", "trash"}
    assert {entry.name for entry in (home / "live").iterdir()} == {"name", "root"}
    assert platform.trees(workspace_id, "trash") == platform.trees(workspace_id, "switch") == set()
    assert len(platform.trees(workspace_id)) == len(CONTENTS) + 1
    await until(lambda: "Z" not in states_below(executor.pid).values(), 10)


@pytest.mark.timeout(TIMEOUT_S)
async def test_a_hundred_switches_leave_no_mount_no_zombie_and_no_tree(
    engine: EngineName, platform: Platform, executor: ExecutorProcess
) -> None:
    workspace_id, snapshots = await with_two_snapshots(platform)
    path = platform.live(workspace_id)
    before, children = mounted(executor.pid), len(states_below(executor.pid))
    for number in range(SWITCHES_ON_JUICEFS if engine == "juicefs" else SWITCHES):
        assert await platform.set_current(workspace_id, snapshots[number % 2]) is TaskState.SUCCEEDED
        assert (path / "which").read_text() == f"{CONTENTS[number % 2]}\n"
        assert os.path.realpath(platform.link(workspace_id)) == str(path)
    await assert_nothing_left(platform, workspace_id, executor)
    assert mounted(executor.pid) <= before
    assert len(states_below(executor.pid)) <= children, "a program that the executor started runs on"


@pytest.mark.timeout(TIMEOUT_S)
async def test_switches_under_an_agent_leave_no_mount_no_cgroup_no_zombie_and_no_tree(
    kernel_holds: None, platform: Platform, executor: ExecutorProcess
) -> None:
    platform.settings_change(lease_s=30.0, lease_renew_s=10.0)
    async with serving(platform) as client:
        workspace_id, snapshots = await with_two_snapshots(platform)
        service = Service(platform, client, workspace_id)
        before = mounted(executor.pid)
        wrapped = await service.shell(AGENT)
        assert await wrapped.line() == CONTENTS[-1]
        (session,) = await service.sessions()
        cgroup = await service.cgroup()
        for number in range(SWITCHES_WITH_AGENT):
            assert await platform.set_current(workspace_id, snapshots[number % 2]) is TaskState.SUCCEEDED
            assert await wrapped.line() == CONTENTS[number % 2]
        await until(lambda: sorted(programs_in(cgroup)) == ITS_PROCESSES, 10)
        assert cgroups_of(session["id"]) == [cgroup]
        assert not [entry for entry in cgroup.iterdir() if entry.is_dir()]
        await until(lambda: "Z" not in states_below(wrapped.process.pid).values(), 10)
        await assert_nothing_left(platform, workspace_id, executor)
        assert mounted(executor.pid) | mounted(wrapped.process.pid) <= before
        wrapped.process.terminate()
        await wrapped.ended()
        await service.close()
        assert cgroups_of(session["id"]) == []


def programs_in(cgroup: Path) -> list[str]:
    """The names of the programs that run in a cgroup."""
    found: list[str] = []
    for pid in (cgroup / "cgroup.procs").read_text().split():
        try:
            found.append(Path(f"/proc/{pid}/comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
