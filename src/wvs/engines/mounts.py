"""Which filesystem holds a directory, from the kernel's own table."""

import errno
import functools
import re
from typing import Final

import msgspec

from wvs.engines.kernel import mount_id

_OCTAL = re.compile(r"\\([0-7]{3})")
_OF_ONE_HOST: Final = frozenset(
    {
        *("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs"),
        *("nilfs2", "overlay", "ramfs", "tmpfs", "ubifs", "xfs", "zfs"),
    }
)


class Mount(msgspec.Struct, frozen=True):
    """One line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5)."""

    id: int
    device: str
    root: str
    point: str
    options: str
    filesystem: str
    source: str
    super_options: str

    @property
    def read_only(self) -> bool:
        """Whether the mount or its filesystem refuses writes."""
        return "ro" in self.options.split(",") or "ro" in self.super_options.split(",")

    @property
    def has_own_buffers(self) -> bool:
        """Whether `syncfs` leaves written data behind, so that only an fsync of each open file makes it visible.

        The process of JuiceFS keeps buffers of its own, which syncfs does not reach (docs/measurements.md#flushing).
        """
        return self.filesystem == "fuse.juicefs"


def mounts(process: int | str = "self") -> tuple[Mount, ...]:
    """Every mount in the namespace of a process, by default this one, that is below the process's root directory."""
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as table:
        return _parsed(table.read())


@functools.lru_cache(maxsize=8)
def _parsed(table: str) -> tuple[Mount, ...]:
    """The text seldom changes, and reading it alone takes a fraction of the time."""
    return tuple(_mount(line) for line in table.split("\n") if line)


def _mount(line: str) -> Mount:
    head, tail = line.split(" - ", 1)
    fields, rest = head.split(" "), tail.split(" ")
    return Mount(
        id=int(fields[0]),
        device=fields[2],
        root=plain_path(fields[3]),
        point=plain_path(fields[4]),
        options=fields[5],
        filesystem=rest[0],
        source=plain_path(rest[1]),
        super_options=rest[2] if len(rest) > 2 else "",
    )


def mount_of(descriptor: int) -> Mount:
    """The mount that holds an open file. Raises `OSError` if it is gone from the table (lazily unmounted)."""
    wanted = mount_id(descriptor)
    for mount in mounts():
        if mount.id == wanted:
            return mount
    raise OSError(errno.ENODEV, "the filesystem is not mounted any more")


def caches_names(filesystem: str) -> bool:
    """Whether a mount of that type may still lead by a name to what was there before another host's rename.

    FUSE and network filesystems do so for a time that each chooses. An unknown filesystem counts as one of them.
    """
    return filesystem not in _OF_ONE_HOST


def plain_path(field: str) -> str:
    """A path as a table of the kernel shows it, where a space is an octal number."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
