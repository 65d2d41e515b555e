"""A medium that fails during a task: full, read-only or broken. Real filesystems show the code and the recovery."""

import errno
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.integration.engines.powercut import RecordedDisk
from tests.integration.executor.campaign import read_tree
from tests.integration.executor.platform import Platform, eventually

from wvs.domain.commands import RetryTask
from wvs.domain.errors import ErrorCode
from wvs.domain.states import SnapshotState, TaskState
from wvs.engines.kernel import sync_filesystem
from wvs.engines.volume.opening import init_volume, open_volume
from wvs.executor import cloning
from wvs.failpoints import failpoint

FILES = 150
_LARGE = {"reflink-on-xfs": 60_000, "copy-in-quota": 3000}
"""Bytes that even a clone of shared blocks needs for each file."""


class Shortage:
    """A filesystem on which a clone of `FILES` files finds no room, although the check before it may pass."""

    def __init__(self, namespace: Namespace, kind: str, name: str) -> None:
        self._kind = kind
        self.error_name = "ENOSPC"
        """The kernel's error; empty for JuiceFS, which clones all or nothing."""
        match kind:
            case "copy-on-ext4":
                self.point = filesystems.ext4(namespace, name, 64, "-N", "400")
            case "reflink-on-xfs":
                self.point = filesystems.xfs(namespace, name, 320)
            case "btrfs-on-btrfs":
                self.point = filesystems.btrfs(namespace, name, 128, "--mixed")
            case "copy-in-quota":
                self.point = _limited(filesystems.btrfs(namespace, name, 400))
                self.error_name = "EDQUOT"
            case "juicefs-on-juicefs":
                self.point = filesystems.juicefs(namespace, name, limits=("--inodes", "400"))
                self.error_name = ""
            case _:
                raise ValueError(kind)
        self.leaves_room = kind != "btrfs-on-btrfs"
        """For what needs less than a clone."""
        self._filler = self.point / "filler"
        self._filler.mkdir()
        self.volume = self.point / "volume"
        init_volume(str(self.volume), uuid.uuid4(), kind.split("-", maxsplit=1)[0])  # type: ignore[arg-type]

    def fill(self, live: Path) -> None:
        """Fills the live tree, then takes the room for a second one."""
        for number in range(FILES):
            (live / f"{number}").write_bytes(b"%d" % number)
            if self._kind == "copy-on-ext4":
                # Its other name is elsewhere: reckoned as a hard link that needs no inode, which it does.
                os.link(live / f"{number}", self._filler / f"other {number}")
            if self._kind in _LARGE:
                os.setxattr(live / f"{number}", "user.large", bytes(_LARGE[self._kind]))
        match self._kind:
            case "reflink-on-xfs":
                self._take_space(leave=4 << 20)
            case "btrfs-on-btrfs":
                pass  # before the clone would be too early, see `strike`
            case "copy-in-quota":
                subprocess.run(
                    ["btrfs", "qgroup", "limit", str(self._referenced() + (192 << 10)), self.point], check=True
                )
            case _:
                for number in range(FILES):
                    (self._filler / f"{number}").touch()

    def _take_space(self, leave: int) -> None:
        figures = os.statvfs(self.point)
        with (self._filler / "large").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, figures.f_bavail * figures.f_frsize - leave)

    def strike(self) -> None:
        """Between the stamp and the clone."""
        if self._kind == "btrfs-on-btrfs":
            self._take_all()

    def _take_all(self) -> None:
        """Fills the disk. Data and metadata share their blocks here: without room for data a snapshot has no room."""
        size = 1 << 20
        number = 0
        while size:
            try:
                (self._filler / f"{number}").write_bytes(os.urandom(size))
                self.free()
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 4
            number += 1

    def _referenced(self) -> int:
        subprocess.run(["btrfs", "filesystem", "sync", self.point], check=True, capture_output=True)
        shown = subprocess.run(
            ["btrfs", "qgroup", "show", "--raw", "-f", self.point], check=True, capture_output=True, text=True
        )
        return int(shown.stdout.splitlines()[-1].split()[1])

    def relieve(self) -> None:
        for path in self._filler.iterdir():
            path.unlink()
        if self._kind == "copy-in-quota":
            subprocess.run(["btrfs", "qgroup", "limit", "none", self.point], check=True)

    def free(self) -> tuple[int, int]:
        """Bytes, inodes."""
        if self._kind == "copy-in-quota":
            return -self._referenced(), 0
        descriptor = os.open(self.point, os.O_RDONLY)
        sync_filesystem(descriptor)
        os.close(descriptor)
        figures = os.statvfs(self.point)
        return figures.f_bavail * figures.f_frsize, figures.f_favail


def _limited(point: Path) -> Path:
    """A subvolume, to which a limit can be set."""
    subprocess.run(["btrfs", "-q", "quota", "enable", point], check=True)
    subprocess.run(["btrfs", "-q", "subvolume", "create", point / "limited"], check=True)
    return point / "limited"


@pytest.fixture(params=["copy-on-ext4", "reflink-on-xfs", "btrfs-on-btrfs", "copy-in-quota", "juicefs-on-juicefs"])
def shortage(request: pytest.FixtureRequest, namespace: Namespace, platform: Platform) -> Shortage:
    try:
        made = Shortage(namespace, request.param, f"short-{uuid.uuid4().hex[:8]}")
    except Unavailable as error:
        pytest.skip(str(error))
    platform.volume = made.volume
    return made


@pytest.fixture
def disk(namespace: Namespace, platform: Platform) -> Iterator[RecordedDisk]:
    try:
        made = RecordedDisk(namespace, "ext4", f"disk-{uuid.uuid4().hex[:8]}")
    except Unavailable as error:
        pytest.skip(str(error))
    platform.volume = made.point / "volume"
    init_volume(str(platform.volume), uuid.uuid4(), "copy")
    yield made
    made.close()


async def test_no_room_in_mid_clone_fails_the_task_frees_the_space_and_a_retry_works(
    platform: Platform, shortage: Shortage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        shortage.fill(platform.live(workspace_id))
        before: list[tuple[int, int]] = []

        def strike() -> None:
            shortage.strike()
            before.append(shortage.free())

        once_stamped(monkeypatch, strike)
        snapshot_id, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id, 60) is TaskState.FAILED
        error = await platform.error(task_id)
        assert (error.code, bool(error.hint)) == (ErrorCode.VOLUME_FULL, True)
        assert {shortage.error_name} - {""} == {word for word in ("ENOSPC", "EDQUOT") if word in error.detail}, (
            error.detail
        )
        assert (await platform.workspace(workspace_id)).snapshots[snapshot_id].state is SnapshotState.FAILED
        await platform.until_swept(workspace_id)

        async def given_back() -> bool:
            space, inodes = shortage.free()
            return space >= before[0][0] - (1 << 20) and inodes >= before[0][1] - 8

        await eventually(given_back, 60)  # some filesystems free inodes a little later
        assert len(read_tree(platform.live(workspace_id))) == FILES
        if shortage.leaves_room:
            (platform.live(workspace_id) / "0").write_text("still writable")

        shortage.relieve()
        await platform.execute(workspace_id, RetryTask(task_id))
        assert await platform.wait(workspace_id, task_id, 60) is TaskState.SUCCEEDED
        tree = (await platform.workspace(workspace_id)).snapshots[snapshot_id].tree
        snapshot = read_tree(platform.home(workspace_id) / "trees" / str(tree) / "root")
        assert snapshot == read_tree(platform.live(workspace_id))


def once_stamped(monkeypatch: pytest.MonkeyPatch, strike: Callable[[], None]) -> None:
    """Calls `strike` once, between the stamp and the clone."""
    struck: list[str] = []

    def at(name: str) -> None:
        if name == "create.stamped" and not struck:
            struck.append(name)
            strike()
        failpoint(name)

    monkeypatch.setattr(cloning, "failpoint", at)


async def failed_codes(platform: Platform, workspace_id: UUID) -> list[str]:
    rows = await platform.pool.fetch(
        "SELECT convert_from(state, 'UTF8')::jsonb #>> '{event,error,code}' AS code FROM wvs.events "
        "WHERE originator_id = $1 AND topic = 'task.attempt_failed.v1' ORDER BY originator_version",
        workspace_id,
    )
    return [row["code"] for row in rows]


async def recovers(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, strike: Callable[[], None], repair: Callable[[], None]
) -> None:
    """A medium fails during a snapshot's clone and is repaired: the task succeeds by itself."""
    async with platform.running():
        workspace_id = await platform.create()
        for number in range(20):
            (platform.live(workspace_id) / f"{number}").write_bytes(os.urandom(200_000))
        open_volume(str(platform.volume)).flush(platform.home(workspace_id).name, platform.live_tree(workspace_id))
        wanted = read_tree(platform.live(workspace_id))
        once_stamped(monkeypatch, strike)
        snapshot_id, task_id = await platform.ask_for_snapshot(workspace_id)

        async def failed() -> list[str]:
            return await failed_codes(platform, workspace_id)

        assert (await eventually(failed, 60))[0] == ErrorCode.VOLUME_UNAVAILABLE
        repair()
        assert await platform.wait(workspace_id, task_id, 60) is TaskState.SUCCEEDED
        assert set(await failed()) == {ErrorCode.VOLUME_UNAVAILABLE}
    async with platform.running():  # it sweeps when it starts what could not be removed meanwhile
        await platform.until_swept(workspace_id, 60)
        await platform.ready_snapshot(workspace_id)
    tree = (await platform.workspace(workspace_id)).snapshots[snapshot_id].tree
    assert read_tree(platform.home(workspace_id) / "trees" / str(tree) / "root") == wanted


async def test_a_volume_that_turns_read_only_is_unavailable_until_it_can_be_written(
    platform: Platform, disk: RecordedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turn(how: str) -> None:
        filesystems.run_when_free("mount", "-o", f"remount,{how}", disk.point)

    await recovers(platform, monkeypatch, strike=lambda: turn("ro"), repair=lambda: turn("rw"))


async def test_a_disk_that_cannot_be_read_is_unavailable_until_it_can(
    platform: Platform, disk: RecordedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike() -> None:
        for path in platform.volume.glob("ws_*/live/root/*"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        disk.forget()
        disk.fail("read")

    await recovers(platform, monkeypatch, strike, repair=disk.fail)


async def test_a_disk_that_cannot_be_written_is_unavailable_until_it_is_remounted(
    platform: Platform, disk: RecordedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def repair() -> None:
        disk.fail()
        disk.remount()

    await recovers(platform, monkeypatch, strike=lambda: disk.fail("write"), repair=repair)
