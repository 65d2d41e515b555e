"""The manifest stamp: a hash of everything that must not change in a frozen tree, by one walk.

Each entry is hashed together with the hash of its directory, and the stamp is the sum of all hashes. So the walk keeps
no list of entries, and the order in which a filesystem lists them does not matter.
"""

import hashlib
import os
import stat
import struct
import time
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, EngineName, Stamp, Totals, TreeDir
from wvs.engines.errors import EngineError, UnreadableError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, kernel_version, open_unseen
from wvs.engines.paths import ROOT
from wvs.engines.trees.descent import Level, TreePath, descend, open_subdirectory, unreadable

_MODULUS: Final = 1 << 128
_WHOLE: Final = 1 << 32
_OWN: Final = struct.Struct("<QqQ")
_SHARED: Final = struct.Struct("<IIIqQ")
_COARSE_CLOCK_S: Final = 0.02  # two jiffies at the slowest usual HZ, 100


class _HashedLevel(Level):
    def __init__(self, place: TreePath, descriptor: int, parent: bytes) -> None:
        super().__init__(place, [descriptor])
        self.digest = _hash(parent, place.name)


def _hash(directory: bytes, rest: str | bytes) -> bytes:
    data = os.fsencode(rest) if isinstance(rest, str) else rest
    return hashlib.blake2b(directory + data, digest_size=16).digest()


def _number(directory: bytes, rest: bytes) -> int:
    return int.from_bytes(_hash(directory, rest), "little")


def _size(status: os.stat_result) -> int:
    # The size of a directory depends on how the filesystem stores it, not on its content.
    return 0 if stat.S_ISDIR(status.st_mode) else status.st_size


class Manifest:
    """The hash and the totals of a tree, by one walk."""

    def __init__(
        self, tree: TreeDir, cancel: Cancel, *, with_content: bool = False, skip_unreadable: bool = False
    ) -> None:
        """Walks the tree. Raises `EngineError`.

        `skip_unreadable`: of a directory that the service may not read, the stamp has the directory alone; a clone
        leaves it out. Its owner and mode are in the stamp, so that it cannot become readable unseen.
        """
        self._cancel = cancel
        self._with_content = with_content
        self._skip_unreadable = skip_unreadable
        self._sum = 0
        self._content = 0
        self._entries = 0
        self._files = 0
        self._linked = 0
        self._bytes = 0
        self._allocated = 0
        try:
            self._walk(tree)
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"reading {tree.root_path}") from error
        except EngineError as error:
            raise error.inside(tree.root_path) from error

    @property
    def totals(self) -> Totals:
        """The size of the tree."""
        return Totals(
            files=self._files,
            bytes=round(self._bytes / _WHOLE),
            allocated=round(self._allocated / _WHOLE),
            linked=self._linked,
            directories=self._entries - self._files,
        )

    @property
    def value(self) -> str:
        """The stamp: the number of entries and the hash."""
        return f"{self._entries}:{self._sum:032x}"

    @property
    def content(self) -> str | None:
        """The stamp without inode numbers and change times, which always differ in a clone."""
        return f"{self._entries}:{self._content:032x}" if self._with_content else None

    def _walk(self, tree: TreeDir) -> None:
        try:
            descriptor = open_unseen(tree.descriptor, ROOT, OPEN_DIRECTORY)
        except FileNotFoundError as error:
            raise EngineError(ErrorCode.TREE_MISSING, f"{tree.root_path} is missing", retryable=False) from error
        root = _HashedLevel(TreePath(None, ""), descriptor, b"")
        self._add(root.digest, "", root.status)
        descend(root, self._enter, self._visit, self._cancel)

    def _enter(self, parent: _HashedLevel, name: str) -> _HashedLevel | None:
        try:
            descriptor = open_subdirectory(parent, name)
        except UnreadableError:
            if not self._skip_unreadable:
                raise
            return None
        return _HashedLevel(TreePath(parent.place, name), descriptor, parent.digest)

    def _visit(self, level: _HashedLevel) -> None:
        with os.scandir(level.source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    level.subdirectories.append(entry.name)
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    if self._skip_unreadable and isinstance(error, PermissionError):
                        self._sum = (self._sum + _number(level.digest, os.fsencode(entry.name))) % _MODULUS
                        continue
                    raise unreadable(error, level, entry.name) from error
                self._add(level.digest, entry.name, status)
                if self._entries % 256 == 0:
                    self._cancel.check()

    def _add(self, directory: bytes, name: str, status: os.stat_result) -> None:
        shared = _SHARED.pack(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, _size(status))
        own = _OWN.pack(status.st_ino, status.st_ctime_ns, status.st_size)
        encoded = os.fsencode(name)
        self._sum = (self._sum + _number(directory, own + shared + encoded)) % _MODULUS
        if self._with_content:
            self._content = (self._content + _number(directory, shared + encoded)) % _MODULUS
        self._entries += 1
        if not stat.S_ISDIR(status.st_mode):
            self._files += 1
            self._linked += status.st_nlink > 1
            # Each name of an inode counts for its share, so that the sum counts each inode once.
            share = _WHOLE // max(status.st_nlink, 1)
            self._bytes += status.st_size * share if stat.S_ISREG(status.st_mode) else 0
            self._allocated += status.st_blocks * 512 * share
        else:
            self._allocated += status.st_blocks * 512 * _WHOLE


def settle_clock(*, fine: bool) -> None:
    """Waits until no write can carry the timestamp of an earlier one. `fine`: the filesystem has fine timestamps.

    Before Linux 6.13, and on most filesystems after it, timestamps are as coarse as the timer: a write just before the
    stamp and one just after it could carry the same ctime. After a wait of two jiffies the second write shows.
    """
    if not fine or kernel_version() < (6, 13):
        time.sleep(_COARSE_CLOCK_S)


def manifest_stamp(
    engine: EngineName,
    tree: TreeDir,
    cancel: Cancel,
    *,
    with_content: bool = False,
    skip_unreadable: bool = False,
) -> Stamp:
    """The manifest stamp of a tree."""
    manifest = Manifest(tree, cancel, with_content=with_content, skip_unreadable=skip_unreadable)
    return Stamp(engine, manifest.value, manifest.content, manifest.totals)
