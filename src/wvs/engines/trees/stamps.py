"""The manifest stamp: a hash over what a frozen tree must not change, in one walk, independent of listing order.

Each entry is hashed with its directory's own hash, and the sum of all is the stamp: no list of entries is kept, and the
order in which a filesystem lists them does not matter.
"""

import hashlib
import os
import stat
import struct
import time
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, EngineName, Stamp, Totals, TreeDir
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, kernel_version, open_unseen
from wvs.engines.paths import ROOT
from wvs.engines.trees.descent import Level, Place, descend, open_subdirectory, unreadable

_MODULUS: Final = 1 << 128
_WHOLE: Final = 1 << 32
_OWN: Final = struct.Struct("<QqQ")
_SHARED: Final = struct.Struct("<IIIqQ")
_COARSE_CLOCK_S: Final = 0.02  # two jiffies at the slowest usual HZ, 100


class _HashedLevel(Level):
    def __init__(self, place: Place, descriptor: int, parent: bytes) -> None:
        super().__init__(place, [descriptor])
        self.digest = _hash(parent, place.name)


def _hash(directory: bytes, rest: str | bytes) -> bytes:
    data = os.fsencode(rest) if isinstance(rest, str) else rest
    return hashlib.blake2b(directory + data, digest_size=16).digest()


def _number(directory: bytes, rest: bytes) -> int:
    return int.from_bytes(_hash(directory, rest), "little")


def _size(status: os.stat_result) -> int:
    # A directory's size tells how its filesystem stores it, not what is in it.
    return 0 if stat.S_ISDIR(status.st_mode) else status.st_size


class Manifest:
    """One walk over a tree: its hash and its totals."""

    def __init__(self, tree: TreeDir, cancel: Cancel, *, with_content: bool = False) -> None:
        """Walks at once. Raises `EngineError`."""
        self._cancel = cancel
        self._with_content = with_content
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
        """The stamp: number of entries and hash."""
        return f"{self._entries}:{self._sum:032x}"

    @property
    def content(self) -> str | None:
        """The same without what a clone has of its own: inode numbers and change times."""
        return f"{self._entries}:{self._content:032x}" if self._with_content else None

    def _walk(self, tree: TreeDir) -> None:
        try:
            descriptor = open_unseen(tree.descriptor, ROOT, OPEN_DIRECTORY)
        except FileNotFoundError as error:
            raise EngineError(ErrorCode.TREE_MISSING, f"{tree.root_path} is missing", retryable=False) from error
        root = _HashedLevel(Place(None, ""), descriptor, b"")
        self._add(root.digest, "", root.status)
        descend(root, self._enter, self._visit, self._cancel)

    def _enter(self, parent: _HashedLevel, name: str) -> _HashedLevel:
        return _HashedLevel(Place(parent.place, name), open_subdirectory(parent, name), parent.digest)

    def _visit(self, level: _HashedLevel) -> None:
        with os.scandir(level.source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    level.subdirectories.append(entry.name)
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    raise unreadable(error, level.place, entry.name) from error
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
            # Each of an inode's names carries its share, so that the sum counts the inode once without a memory of it.
            share = _WHOLE // max(status.st_nlink, 1)
            self._bytes += status.st_size * share if stat.S_ISREG(status.st_mode) else 0
            self._allocated += status.st_blocks * 512 * share
        else:
            self._allocated += status.st_blocks * 512 * _WHOLE


def settle_clock(*, fine: bool) -> None:
    """Waits until a write cannot carry the timestamp of an earlier one; `fine`: the filesystem has fine timestamps.

    Before Linux 6.13, and on most filesystems after it, timestamps are as coarse as the timer: a write just before the
    stamp and one just after it could carry the same ctime. After a wait of two jiffies the second write shows.
    """
    if not fine or kernel_version() < (6, 13):
        time.sleep(_COARSE_CLOCK_S)


def manifest_stamp(engine: EngineName, tree: TreeDir, cancel: Cancel, *, with_content: bool = False) -> Stamp:
    """The manifest stamp of a tree."""
    manifest = Manifest(tree, cancel, with_content=with_content)
    return Stamp(engine, manifest.value, manifest.content, manifest.totals)
