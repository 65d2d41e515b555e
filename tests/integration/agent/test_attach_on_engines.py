"""`wvsctl agent attach` with a busy container on every engine: its mount is of a plain directory, a subvolume, or FUSE.

`make test` takes ten snapshots on each engine. `make freeze` takes WVS_ATTACHED_SNAPSHOTS (100).
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.agent.attaching import attached, bound
from tests.integration.agent.conftest import Service, service_on, until
from tests.integration.agent.docker_engine import DockerEngine
from tests.integration.agent.writing import __file__ as program
from tests.integration.agent.writing import broken
from tests.integration.engines.conftest import Sites
from tests.integration.engines.filesystems import Unavailable
from tests.integration.executor.campaign import KINDS, WITHOUT_MOUNT
from tests.integration.executor.conftest import volume_of

from wvs.domain.states import TaskState
from wvs.postgres.pool import Pool

SNAPSHOTS = int(os.environ.get("WVS_ATTACHED_SNAPSHOTS", "10"))
TIMEOUT_S = 300 + 10 * SNAPSHOTS


@pytest.fixture(params=[WITHOUT_MOUNT, *KINDS[1:]])
def volume(request: pytest.FixtureRequest, kernel_holds: None, sites: Sites, tmp_path: Path) -> Iterator[Path]:
    with volume_of(request.param, sites, tmp_path) as made:
        yield made


@pytest.fixture
def engine(
    volume: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DockerEngine]:
    """Started after the volume is mounted: Docker sees the mounts that were there when it started."""
    try:
        engine = DockerEngine(tmp_path_factory.mktemp("docker"))  # the path of a socket has at most 107 bytes
    except Unavailable as reason:
        pytest.skip(str(reason))
    monkeypatch.setenv("DOCKER_HOST", engine.environment["DOCKER_HOST"])
    yield engine
    engine.close()


@pytest.fixture
async def service(volume: Path, pool: Pool, database_url: str) -> AsyncIterator[Service]:
    async with service_on(volume, pool, database_url) as made:
        yield made


@pytest.mark.timeout(TIMEOUT_S)
async def test_snapshots_of_a_busy_container_keep_every_invariant(
    engine: DockerEngine, service: Service, tmp_path: Path
) -> None:
    """Then the tree is replaced, and the container works in the new one."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    name = engine.start(sys.executable, program, options=(bound(service.live), "--workdir=/work"))
    await until(lambda: "ready" in engine.logs(name))
    wrapped = await attached(service, "--container", name)
    steps: list[bytes] = []
    snapshot_id = None
    for _ in range(SNAPSHOTS):
        if snapshot_id is not None:
            await service.platform.ask_for_drop(service.workspace_id, snapshot_id)
        await asyncio.sleep(0.05)
        snapshot_id, tree = await frozen_tree(service)
        assert await asyncio.to_thread(broken, tree, scratch) == []
        steps.append((tree / "first").read_bytes())
    assert len(set(steps)) == SNAPSHOTS, "the container did not run between the snapshots"
    assert snapshot_id is not None
    run = engine.state(name)["Pid"]
    mounted = mounted_in(engine, name)
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await until(lambda: engine.logs(name).count("ready") == 2)
    assert engine.state(name)["Pid"] != run
    assert mounted_in(engine, name) != mounted, "the container kept the mount of the old tree"
    _, tree = await frozen_tree(service)
    assert await asyncio.to_thread(broken, tree, scratch) == []
    assert await service.attempts_failed() == []
    assert wrapped.process.returncode is None


async def frozen_tree(service: Service) -> tuple[UUID, Path]:
    """A snapshot that was taken while the container was frozen, and its tree."""
    snapshot_id, task_id = await service.platform.ask_for_snapshot(service.workspace_id)
    assert await service.platform.wait(service.workspace_id, task_id, 120) is TaskState.SUCCEEDED
    (member,) = (await service.document(snapshot_id))["certificate"]["members"]
    assert (member["flush"], member["frozen"]["kind"]) == ("ok", "container")
    return snapshot_id, await service.tree(snapshot_id)


def mounted_in(engine: DockerEngine, name: str) -> tuple[int, int]:
    """The device and inode of the directory mounted at /work. The root of each subvolume has the same inode."""
    status = Path(f"/proc/{engine.state(name)['Pid']}/root/work").stat()
    return status.st_dev, status.st_ino
