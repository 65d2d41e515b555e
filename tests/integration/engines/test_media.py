"""Full, read-only, broken and cut-off filesystems: the right code, the space given back, the workspace usable after."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.integration.engines import filesystems
from tests.integration.engines.conftest import Bench, attempt, new_uuid7
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.integration.engines.trees import account
from tests.skips import need_program

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.base import Cancel, EngineName
from wvs.engines.volume.opening import init_volume, open_volume

MIB = 1 << 20
SMALL = ["copy-on-ext4", "reflink-on-xfs", "reflink-on-btrfs", "btrfs-on-btrfs"]


class SmallSite:
    """A filesystem for one test alone."""

    def __init__(self, namespace: Namespace, kind: str, directory: str) -> None:
        engine, _, filesystem = kind.partition("-on-")
        self.name = f"{filesystem}-{directory}"
        self._namespace = namespace
        try:
            match filesystem:
                case "ext4":
                    self.point = filesystems.ext4(namespace, self.name, 64)
                case "xfs":
                    self.point = filesystems.xfs(namespace, self.name, 320)
                case "btrfs":
                    self.point = filesystems.btrfs(namespace, self.name, 96, "--mixed")
                case _:
                    raise ValueError(filesystem)
        except Unavailable as error:
            pytest.skip(str(error))
        self.image = namespace.directory / f"{self.name}.img"
        self.engine: EngineName = engine  # type: ignore[assignment]
        self.volume_path = str(self.point / "volume")
        init_volume(self.volume_path, uuid.uuid4(), self.engine)
        self.bench = Bench(open_volume(self.volume_path))

    def remount(self, *options: str) -> None:
        subprocess.run(["mount", "-o", ",".join(("remount", *options)), self.point], check=True)

    def fill(self, leave: int) -> Path:
        """Takes all space but about `leave` bytes."""
        filler = self.point / "filler"
        subprocess.run(["sync", "-f", self.point], check=True)
        size = shutil.disk_usage(self.point).free - leave
        with filler.open("wb") as file:
            while size > 0 and attempt_write(file.fileno(), min(size, MIB)):
                size -= MIB
        subprocess.run(["sync", "-f", self.point], check=True)
        return filler

    def free_settled(self) -> int:
        """Free space once removed blocks are freed (btrfs and XFS free them in the background)."""
        subprocess.run(["sync", "-f", self.point], check=True)
        last = -1
        until = time.monotonic() + 20
        while (free := shutil.disk_usage(self.point).free) != last and time.monotonic() < until:
            last = free
            time.sleep(0.2)
            subprocess.run(["sync", "-f", self.point], check=True)
        return free

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.point], check=False, capture_output=True)
        if self.point in self._namespace.points:
            self._namespace.points.remove(self.point)
        self.image.unlink(missing_ok=True)


def attempt_write(descriptor: int, size: int) -> bool:
    try:
        return os.write(descriptor, os.urandom(size)) == size
    except OSError:
        return False


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest, namespace: Namespace) -> Iterator[SmallSite]:
    site = SmallSite(namespace, request.param, uuid.uuid4().hex[:8])
    yield site
    site.close()


def make_files(root: Path, number: int, size: int) -> None:
    for index in range(number):
        (root / f"file{index}").write_bytes(os.urandom(size))


def test_a_full_volume_is_an_error_and_purging_works_there_and_frees_the_space(small: SmallSite) -> None:
    bench = small.bench
    source = bench.live()
    make_files(bench.path(source), 2000, 5000)
    before = small.free_settled()
    filler = small.fill(leave=0 if small.engine == "btrfs" else 3 * MIB)

    targets: list[str] = []
    error = None
    while error is None and len(targets) < 40:
        targets.append(bench.new_name())
        error = attempt(partial(clone_into, bench, source, targets[-1]))
    assert error is not None, "the volume never became full"
    assert error.code is ErrorCode.VOLUME_FULL
    assert error.retryable
    assert error.hint

    for target in targets:
        bench.purge(target)
    filler.unlink()
    assert small.free_settled() >= before - 8 * MIB
    clone = bench.clone(source)
    assert account(bench.path(clone)) == account(bench.path(source))


def clone_into(bench: Bench, source: str, target: str) -> None:
    bench.volume.intend(bench.workspace, target)
    bench.volume.clone(bench.workspace, source, target)
    bench.volume.sync(bench.workspace, target)


@pytest.mark.parametrize("small", [kind for kind in SMALL if kind.startswith("copy-")], indirect=True)
def test_space_is_checked_before_anything_is_cloned(small: SmallSite) -> None:
    """The other engines share blocks."""
    bench = small.bench
    source = bench.live()
    make_files(bench.path(source), 1, 20 * MIB)
    small.fill(leave=10 * MIB)
    target = bench.intend()
    stamp = bench.volume.stamp(bench.workspace, source)
    error = attempt(lambda: bench.volume.clone(bench.workspace, source, target, totals=stamp.totals))
    assert error is not None
    assert error.code is ErrorCode.VOLUME_FULL
    assert not bench.has_tree(target)
    assert "keeps another 1048576 bytes (1 MiB) free" in error.detail


def test_a_read_only_volume_is_unavailable_and_works_again_when_it_can_be_written(small: SmallSite) -> None:
    bench = small.bench
    source, target = bench.live(), bench.intend()
    make_files(bench.path(source), 10, 100)
    bench.volume.retire(bench.workspace, bench.live())
    retired = bench.volume.trash(bench.workspace)[0]
    small.remount("ro")
    calls = [
        lambda: bench.volume.intend(bench.workspace, bench.new_name()),
        lambda: bench.volume.clone(bench.workspace, source, target),
        lambda: bench.volume.retire(bench.workspace, source),
        lambda: bench.volume.purge(bench.workspace, retired),
        lambda: bench.volume.take(bench.workspace, "trees", source),
        lambda: bench.volume.create_workspace(format_id(WORKSPACE, new_uuid7())),
        lambda: open_volume(small.volume_path),
    ]
    for number, call in enumerate(calls):
        error = attempt(call)
        assert error is not None, number
        assert error.code is ErrorCode.VOLUME_UNAVAILABLE, (number, error)
        assert error.retryable
    small.remount("rw")
    bench.volume.clone(bench.workspace, source, target)
    bench.volume.purge(bench.workspace, retired)
    assert account(bench.path(target)) == account(bench.path(source))


def test_an_exceeded_quota_is_a_full_volume(namespace: Namespace) -> None:
    small = SmallSite(namespace, "copy-on-btrfs", uuid.uuid4().hex[:8])
    try:
        limited = small.point / "limited"
        for command in (
            ("quota", "enable", small.point),
            ("subvolume", "create", limited),
            ("qgroup", "limit", "10m", limited),
        ):
            subprocess.run(["btrfs", "-q", *command], check=True)
        init_volume(str(limited), uuid.uuid4(), "copy")
        bench = Bench(open_volume(str(limited)))
        source = bench.live()
        # Small enough to lie in metadata: larger files would share their blocks even when copied.
        make_files(bench.path(source), 4000, 1500)
        bench.volume.sync(bench.workspace, source)
        target = bench.intend()
        error = attempt(partial(bench.volume.clone, bench.workspace, source, target))
        assert error is not None
        assert error.code is ErrorCode.VOLUME_FULL
        assert "EDQUOT" in error.detail
        bench.purge(target)
    finally:
        small.close()


def test_a_medium_that_cannot_be_read_is_unavailable(namespace: Namespace) -> None:
    """The image is cut off under the mounted filesystem: what lies beyond its end fails with EIO."""
    small = SmallSite(namespace, "copy-on-ext4", uuid.uuid4().hex[:8])
    try:
        bench = small.bench
        source = bench.live()
        make_files(bench.path(source), 20, MIB)
        target = bench.intend()
        subprocess.run(["sync", "-f", small.point], check=True)
        for path in bench.path(source).iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.truncate(small.image, 4 * MIB)
        error = attempt(lambda: bench.volume.clone(bench.workspace, source, target, cancel=Cancel(30)))
        assert error is not None
        assert error.code is ErrorCode.VOLUME_UNAVAILABLE
    finally:
        small.close()


def test_a_volume_that_is_not_mounted_is_unavailable_and_nothing_is_made_below(namespace: Namespace) -> None:
    small = SmallSite(namespace, "copy-on-ext4", uuid.uuid4().hex[:8])
    try:
        subprocess.run(["umount", small.point], check=True)
        namespace.points.remove(small.point)
        error = attempt(lambda: small.bench.volume.create_workspace(small.bench.workspace))
        assert error is not None
        assert error.code is ErrorCode.VOLUME_UNAVAILABLE
        assert list(small.point.iterdir()) == []
        subprocess.run(["mount", "-o", "loop", small.image, small.point], check=True)
        assert small.bench.volume.workspaces() == [small.bench.workspace]
    finally:
        small.close()


# btrfs has no shutdown call that xfs_io knows.
@pytest.mark.parametrize("small", [kind for kind in SMALL if not kind.endswith("-btrfs")], indirect=True)
@pytest.mark.parametrize("synced", [True, False], ids=["synced", "not synced"])
def test_what_was_synced_survives_a_power_cut(small: SmallSite, synced: bool) -> None:
    """The filesystem is shut down without its log; a clone that was not synced must be gone, or this proves nothing."""
    need_program("xfs_io")
    bench = small.bench
    source = bench.live()
    make_files(bench.path(source), 200, 3000)
    bench.volume.sync(bench.workspace, source)
    wanted = account(bench.path(source))

    target = bench.clone(source)
    if synced:
        bench.volume.sync(bench.workspace, target)
    subprocess.run(["xfs_io", "-x", "-c", "shutdown", small.point], check=True)
    subprocess.run(["umount", small.point], check=True)
    subprocess.run(["mount", "-o", "loop", small.image, small.point], check=True)

    assert account(bench.path(source)) == wanted
    kept = bench.has_tree(target) and account(bench.path(target)) == wanted
    assert kept is synced


def test_a_finished_btrfs_clone_is_on_the_disk(namespace: Namespace) -> None:
    """What the device holds at that moment is copied and mounted elsewhere."""
    small = SmallSite(namespace, "btrfs-on-btrfs", uuid.uuid4().hex[:8])
    try:
        bench = small.bench
        source = bench.live()
        make_files(bench.path(source), 200, 3000)
        target = bench.clone(source)
        bench.volume.seal(bench.workspace, target)
        bench.volume.sync(bench.workspace, target)
        wanted = account(bench.path(target))

        copied = small.image.with_suffix(".copy")
        subprocess.run(["cp", "--sparse=always", small.image, copied], check=True)
        small.close()
        other = namespace.mount(f"{small.name}-again", "-o", "loop", str(copied))
        again = other / Path(bench.path(target)).relative_to(small.point)
        assert account(again) == wanted
        subprocess.run(["umount", other], check=True)
        copied.unlink()
    finally:
        small.close()
