"""Power cuts: a filesystem on a disk that remembers its writes, and the disk as it would be found after a cut."""

import ctypes
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.integration.engines import recorded_disk
from tests.integration.engines.filesystems import Namespace, Unavailable, need_program, run, run_when_free
from tests.integration.engines.recorded_disk import Record, records

_libc = ctypes.CDLL(None, use_errno=True)

MAKE = {
    "ext4": (("mkfs.ext4", "-q"), 64, ""),
    "xfs": (("mkfs.xfs", "-q", "-m", "reflink=1"), 320, ""),
    "btrfs": (("mkfs.btrfs", "-q"), 256, "noatime"),
}
"""How to make each filesystem: command, size in MB, mount options."""


class RecordedDisk:
    """A mounted filesystem on a recorded disk."""

    def __init__(self, namespace: Namespace, filesystem: str, name: str) -> None:
        """Raises `Unavailable` where FUSE, root or the filesystem's tools are missing."""
        make, size_mb, self._options = MAKE[filesystem]
        self._namespace = namespace
        program = need_program(make[0])
        namespace.enter()
        self._directory = namespace.directory / name
        self._directory.mkdir()
        self.first = self._directory / "first.img"
        self.log = self._directory / "log"
        with self.first.open("wb") as file:
            file.truncate(size_mb << 20)
        run(program, *make[1:], self.first)
        image = self._directory / "now.img"
        run("cp", "--sparse=always", self.first, image)
        self._device = self._directory / "device"
        self._device.touch()
        self._server = self._serve(image)
        self._mounted = [self._device]
        self.point = namespace.mount(f"{name}-mounted", "-o", self._loop(), str(self._device))
        self._mounted.append(self.point)

    def _loop(self) -> str:
        return ",".join(filter(None, ["loop", self._options]))

    def _serve(self, image: Path) -> subprocess.Popen[bytes]:
        try:
            fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"/dev/fuse: {error.strerror}") from error
        try:
            options = f"fd={fuse},rootmode={stat.S_IFREG:o},user_id=0,group_id=0,allow_other"
            if _libc.mount(b"recorded-disk", os.fsencode(self._device), b"fuse", 0, options.encode()) != 0:
                raise Unavailable(f"mounting FUSE: {os.strerror(ctypes.get_errno())}")
            outside = self._namespace.outside
            command = [sys.executable, recorded_disk.__file__, str(fuse), str(outside), str(image), str(self.log)]
            return subprocess.Popen(command, pass_fds=[fuse, outside], cwd="/")
        finally:
            os.close(fuse)

    def now(self) -> int:
        """The log's length: all requests that the disk has answered so far."""
        return self.log.stat().st_size

    def fail(self, *requests: str) -> None:
        """From now on these requests (`read`, `write`) fail with EIO. Without arguments the disk works again."""
        faults = self.log.with_name("log.faults")
        if requests:
            faults.write_text(" ".join(requests))
        else:
            faults.unlink()

    def forget(self) -> None:
        """Drops what the kernel has read of the disk below the filesystem, so that it has to be read again."""
        with self._device.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def remount(self) -> None:
        """Remounts the filesystem, as an operator does after a repair of the disk."""
        run_when_free("umount", self.point)
        run_when_free("mount", "-o", self._loop(), self._device, self.point)

    def close(self) -> None:
        """Takes everything away."""
        self.unmount()
        shutil.rmtree(self._directory)

    def unmount(self) -> None:
        """Unmounts; the server ends when its mount does."""
        for point in reversed(self._mounted):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
            with suppress(ValueError):
                self._namespace.points.remove(point)
        self._mounted = []
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    @contextmanager
    def found(self, cut: "Cut") -> Iterator[Path]:
        """The filesystem as it is found at the first mount after the cut."""
        image = self._directory / "found.img"
        run("cp", "--sparse=always", self.first, image)
        with image.open("r+b") as file:
            for record in cut.kept:
                assert record.data is not None
                file.seek(record.offset)
                file.write(record.data)
        point = self._directory / "found"
        point.mkdir(exist_ok=True)
        run("mount", "-o", self._loop(), image, point)
        try:
            yield point
        finally:
            run_when_free("umount", point)
            image.unlink()


class Cut(NamedTuple):
    """A moment at which the power went: the log's length then, and the writes that had reached the medium."""

    at: int
    kept: list[Record]


def cuts(log: Path, marks: Sequence[int], number: int, seed: str) -> Iterator[Cut]:
    """Cuts at every mark and at chosen moments in between; unflushed writes are lost, or kept at random.

    At a mark both: the hardest disk, which lost everything since the last flush, and one that wrote some of it, in any
    order. `number` bounds the others.
    """
    chance = random.Random(seed)
    found = list(records(log))
    later = [record for record in found if record.ends_at > min(marks)]
    flushes = [record.ends_at for record in later if record.data is None]
    moments = chance.sample(flushes, min(number // 2, len(flushes)))
    moments += [record.ends_at for record in chance.sample(later, min(number - len(moments), len(later)))]
    for at in marks:
        yield _cut(found, at, chance, share=0.0)
        yield _cut(found, at, chance, share=0.5)
    for at in sorted(moments):
        yield _cut(found, at, chance, share=chance.choice((0.0, 0.5, 0.9, 1.0)))


def _cut(found: list[Record], at: int, chance: random.Random, share: float) -> Cut:
    asked = [record for record in found if record.ends_at <= at]
    flushed = max((number for number, record in enumerate(asked) if record.data is None), default=-1)
    kept = [
        record
        for number, record in enumerate(asked)
        if record.data is not None and (number < flushed or chance.random() < share)
    ]
    return Cut(at, kept)
