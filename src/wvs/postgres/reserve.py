"""Disk space kept for a full disk, beside the embedded server (design §5.10).

    <data_dir>/reserve         a file that holds the space; it shrinks when the space is needed

`wvs up` fills the file. Any process of the service releases a part of it when PostgreSQL finds no room for a command
that ends work or frees space, and repeats the command at once: a program that fills the disk may take the part, too.
"""

import os
from pathlib import Path
from typing import Final

from msgspec import Struct

RESERVE_BYTES: Final = 64 * 1024 * 1024
RESERVE_SHARE: Final = 0.0625
"""The largest share of a disk that the reserve takes."""
PART_BYTES: Final = 2 * 1024 * 1024
ROOM_BYTES: Final = 4 * 1024 * 1024
"""Room for the blocks by which PostgreSQL extends its files for some commands."""
START_BYTES: Final = 20 * 1024 * 1024
"""Room that a PostgreSQL server needs to start after a crash: a segment of its log and some small files."""


class Disk(Struct, frozen=True):
    """A filesystem, in bytes. `free` is what a program without privileges may still write.

    `kept_for_root` is free, too, but only for root (ext4 keeps 5 %): PostgreSQL gets room only beyond it.
    """

    total: int
    free: int
    kept_for_root: int = 0

    @property
    def used_ratio(self) -> float:
        return used_ratio(self.total, self.free)


def used_ratio(total: int, free: int) -> float:
    """The share of a filesystem that is in use or kept from programs without privileges."""
    return 1 - free / total if total else 0.0


def disk_of(path: Path) -> Disk:
    """The filesystem that holds `path`; raises `OSError`."""
    figures = os.statvfs(path)
    kept = figures.f_bfree - figures.f_bavail
    return Disk(*(blocks * figures.f_frsize for blocks in (figures.f_blocks, figures.f_bavail, kept)))


class DiskReserve:
    """The reserve in one data directory. Where `wvs up` made none, there is nothing to release."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._path = data_dir / "reserve"

    @property
    def size(self) -> int:
        """Bytes that can be released; 0 without a reserve."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def exists(self) -> bool:
        """Whether the server beside it is an embedded one that has a reserve, be it empty."""
        return self._path.exists()

    def fill(self) -> bool:
        """Makes the reserve whole if that leaves as much space free again; True if it grew. Raises `OSError`."""
        disk, size = disk_of(self.data_dir), self.size
        whole = _proper_size(disk) + min(RESERVE_BYTES, disk.kept_for_root)
        if size >= whole or disk.free < 2 * whole - size:
            return False
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, whole)
        finally:
            os.close(descriptor)
        return True

    def make_room(self, needed: int = ROOM_BYTES, *, keep: float = 0.0) -> bool:
        """Gives parts of the reserve back until `needed` bytes are free or only the share `keep` of it is left.

        The share does not count what was added for the part of root. False if nothing more may be given. Raises
        `OSError`.
        """
        least = int(_proper_size(disk_of(self.data_dir)) * keep)
        if self.size <= least:
            return False
        while (size := self.size) > least and disk_of(self.data_dir).free < needed:
            os.truncate(self._path, max(least, size - PART_BYTES))
        return True


def _proper_size(disk: Disk) -> int:
    return min(RESERVE_BYTES, int(disk.total * RESERVE_SHARE))
