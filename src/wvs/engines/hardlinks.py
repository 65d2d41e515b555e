"""Hard links inside one tree: the first name of an inode is copied, every other one is linked to that copy."""

import os
import threading
from typing import Final

from wvs.engines.descent import Place
from wvs.engines.kernel import OPEN_DIRECTORY

_PATH_LIMIT: Final = 4000


class Copy:
    """The first name of an inode with several. Whoever claimed it first calls `made` or `failed`, always."""

    def __init__(self, place: Place, name: str, names_left: int) -> None:
        self.place = place
        self.name = name
        self.names_left = names_left
        self._done = threading.Event()
        self._error: BaseException | None = None

    def made(self) -> None:
        """The first name is there, complete."""
        self._done.set()

    def failed(self, error: BaseException) -> None:
        """It will not come; those who wait for it get the same error."""
        self._error = error
        self._done.set()

    def wait(self) -> None:
        """Returns when the first name is there."""
        self._done.wait()
        if self._error is not None:
            raise self._error


class HardLinks:
    """Remembers the copies of inodes with more names to come, and forgets each after its last. Thread-safe."""

    def __init__(self, target_root: int) -> None:
        """`target_root` stays the caller's and must be open as long as links are made."""
        self._root = target_root
        self._lock = threading.Lock()
        self._copies: dict[tuple[int, int], Copy] = {}

    def claim(self, status: os.stat_result, place: Place, name: str) -> tuple[bool, Copy]:
        """Whether `name` is the first one seen of this inode, and the inode's copy."""
        key = (status.st_dev, status.st_ino)
        with self._lock:
            copy = self._copies.get(key)
            if copy is None:
                copy = self._copies[key] = Copy(place, name, status.st_nlink - 1)
                return True, copy
            copy.names_left -= 1
            if copy.names_left == 0:
                del self._copies[key]
            return False, copy

    def link(self, copy: Copy, directory: int, name: str) -> None:
        """Makes `name` in `directory` one more name of `copy`.

        Another thread may be making the copy right now; it cannot wait for this one, which owns no unfinished copy.
        """
        copy.wait()
        names = copy.place.names()
        path = "/".join([*names, copy.name])
        if len(os.fsencode(path)) < _PATH_LIMIT:
            os.link(path, name, src_dir_fd=self._root, dst_dir_fd=directory, follow_symlinks=False)
            return
        holder = self._open(names)
        try:
            os.link(copy.name, name, src_dir_fd=holder, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(holder)

    def _open(self, names: list[str]) -> int:
        directory = os.open(".", OPEN_DIRECTORY, dir_fd=self._root)
        for name in names:
            try:
                deeper = os.open(name, OPEN_DIRECTORY, dir_fd=directory)
            finally:
                os.close(directory)
            directory = deeper
        return directory
