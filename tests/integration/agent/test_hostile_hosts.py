"""Hosts that cannot stop or flush a program: a process in uninterruptible sleep, a disk that loses writes."""

import asyncio
import errno
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.agent.conftest import Service, Wrapped, serving, until
from tests.integration.agent.hung_file import HungFile, Opcode
from tests.integration.engines.filesystems import Namespace, Unavailable, need_program, run
from tests.integration.executor.platform import Platform, make_volume

from wvs.agent.guardian_handle import GuardianHandle
from wvs.agent.threads import in_daemon_thread
from wvs.domain.states import TaskState
from wvs.postgres.pool import Pool

WRITING = "echo ready; i=0; while true; do i=$((i+1)); echo $i > {}; done"


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    made = Namespace(tmp_path_factory.mktemp("mounts"), "512m")
    yield made
    made.close()


async def writes_on(file: Path) -> None:
    await until(file.exists)
    before = file.read_text()
    await until(lambda: file.read_text() not in ("", before))


class Neighbour:
    """Another agent of the workspace, which has to resume whatever happens to the first one."""

    def __init__(self, service: Service, wrapped: Wrapped) -> None:
        self._service = service
        self.wrapped = wrapped

    async def runs(self) -> None:
        await writes_on(self._service.live / "neighbour")


async def neighbour_of(service: Service) -> Neighbour:
    wrapped = await service.shell(WRITING.format("neighbour"))
    await wrapped.line()
    return Neighbour(service, wrapped)


@pytest.fixture
def hung(namespace: Namespace) -> Iterator[HungFile]:
    try:
        namespace.enter()
        (namespace.directory / "fuse").mkdir(exist_ok=True)
        file = HungFile(namespace.directory / "fuse")
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield file
    file.close()


async def test_a_process_in_uninterruptible_sleep_refuses_the_freeze_within_the_budget(
    hung: HungFile, short_freezes: None, service: Service
) -> None:
    neighbour = await neighbour_of(service)
    wrapped = await service.shell(f"cat {hung.path} & " + WRITING.format("a"))
    await wrapped.line()
    session = next(s["id"] for s in await service.sessions() if s["pid"] == wrapped.process.pid)
    await until(hung.read.is_set)
    cgroup = await service.cgroup_of(session)
    trees = service.platform.trees(service.workspace_id)
    observed: set[tuple[str, str]] = set()
    _, task_id = await service.platform.ask_for_snapshot(service.workspace_id)
    ending = asyncio.create_task(service.platform.wait(service.workspace_id, task_id))
    while not ending.done():
        events = (cgroup / "cgroup.events").read_text().split()
        observed.add(((cgroup / "cgroup.freeze").read_text().strip(), events[events.index("frozen") + 1]))
        await asyncio.sleep(0.005)
    assert await ending is TaskState.FAILED
    assert ("1", "0") in observed, "the kernel must report the requested freeze as incomplete"
    assert "1" not in {frozen for _, frozen in observed}
    error = await service.failure()
    assert error["code"] == "QUIESCE_REFUSED"
    assert session in error["detail"]
    assert "did not stop within" in error["detail"]
    await until(lambda: service.platform.trees(service.workspace_id) == trees)
    await neighbour.runs()
    await writes_on(service.live / "a")
    hung.release()
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED


@pytest.fixture
def hung_volume(namespace: Namespace) -> Iterator[HungFile]:
    try:
        namespace.enter()
        (namespace.directory / "volume").mkdir(exist_ok=True)
        file = HungFile(namespace.directory / "volume", Opcode.LOOKUP)
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield file
    file.close()


async def test_a_guardian_thaws_its_command_although_the_volume_hangs(hung_volume: HungFile, tmp_path: Path) -> None:
    """Without its wrapper, no other process would thaw the command. A plain file replaces that of the cgroup."""
    frozen = tmp_path / "cgroup.freeze"
    frozen.write_text("1")
    guardian = GuardianHandle(tmp_path, frozen.name, "0")
    try:
        guardian.arm(time.monotonic(), f"{hung_volume.path.parent}/trees/name/root")
        await until(lambda: frozen.read_text() == "0")
        assert hung_volume.read.is_set()
        closing = asyncio.create_task(in_daemon_thread(guardian.close))
        async with asyncio.timeout(60):
            await closing
    finally:
        hung_volume.release()
        guardian._process.wait()


@pytest.fixture
def failing_disk(namespace: Namespace) -> Path:
    """A disk that loses writes once a file `ballast` beside its image has filled its backing store."""
    try:
        store = namespace.mount("store", "-t", "tmpfs", "-o", "size=48m", "none")
        with (store / "image").open("wb") as file:
            file.truncate(40 << 20)
        run(need_program("mkfs.ext4"), "-q", "-O", "^has_journal", store / "image")
        return namespace.mount("disk", "-o", "loop", str(store / "image"))
    except Unavailable as reason:
        pytest.skip(str(reason))


def fill(store: Path) -> None:
    descriptor = os.open(store / "ballast", os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, bytes(1 << 16))
    except OSError:
        pass  # full
    finally:
        os.close(descriptor)


@pytest.fixture
async def on_failing_disk(
    kernel_holds: None, failing_disk: Path, pool: Pool, database_url: str
) -> AsyncIterator[Service]:
    platform = Platform(pool, database_url, make_volume(failing_disk / "volume"))
    async with platform.hinting(), serving(platform) as client, platform.running():
        made = Service(platform, client, await platform.create())
        yield made
        await made.close()


async def failed_snapshot(service: Service) -> dict[str, Any]:
    """The error of a snapshot. If a sync elsewhere has filled the disk before, the executor fails to write itself."""
    for _ in range(5):
        _, state = await service.snapshot()
        assert state is TaskState.FAILED
        error = await service.failure()
        if error["code"] != "VOLUME_UNAVAILABLE":
            break
    return error


async def test_a_failed_flush_refuses_every_freeze_until_the_program_is_restarted(
    on_failing_disk: Service, namespace: Namespace
) -> None:
    service, store = on_failing_disk, namespace.directory / "store"
    os.sync()
    fill(store)
    wrapped = await service.shell("head -c 8000000 /dev/urandom > big; " + WRITING.format("a"))
    await wrapped.line()
    (session,) = await service.sessions()
    trees = service.platform.trees(service.workspace_id)
    for _ in range(2):
        error = await failed_snapshot(service)
        assert error["code"] == "QUIESCE_REFUSED"
        assert session["id"] in error["detail"]
        assert "the flush failed" in error["detail"]
        assert any(os.strerror(number) in error["detail"] for number in (errno.EIO, errno.ENOSPC))
        await until(lambda: service.platform.trees(service.workspace_id) == trees)
        await writes_on(service.live / "a")
        # There is space again, but the lost data stays lost: a second flush must not report success.
        (store / "ballast").unlink(missing_ok=True)
    wrapped.process.terminate()
    await wrapped.ended()
    # The kernel would report an unseen failure to the next program. This sync consumes it, as a person would.
    sync = await asyncio.create_subprocess_exec("sync", "-f", service.live, stderr=subprocess.DEVNULL)
    await sync.wait()
    again = await service.shell(WRITING.format("a"))
    await again.line()
    _, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
