"""Hard links inside one tree: the first name of an inode is copied, every other name is linked to that copy."""

import os
from typing import Final

from wvs.engines.kernel import OPEN_DIRECTORY
from wvs.engines.trees.descent import TreePath
from wvs.engines.trees.notes import Notes

_PATH_LIMIT: Final = 4000


class _Copy:
    __slots__ = ("name", "names_left", "place")

    def __init__(self, place: TreePath, name: str, names_left: int) -> None:
        self.place = place
        self.name = name
        self.names_left = names_left


class HardLinks:
    """Remembers the copy of each inode that has further names, and forgets it after the last of them."""

    def __init__(self, target_root: int) -> None:
        """The caller owns `target_root` and keeps it open as long as links are made."""
        self._root = target_root
        self._copies: dict[tuple[int, int], _Copy] = {}

    def link(self, status: os.stat_result, directory: int, name: str) -> bool:
        """Makes `name` in `directory` a further name of the inode's copy; False if the inode has no copy yet."""
        copy = self._copies.get((status.st_dev, status.st_ino))
        if copy is None:
            return False
        names = copy.place.names()
        path = "/".join([*names, copy.name])
        if len(os.fsencode(path)) < _PATH_LIMIT:
            os.link(path, name, src_dir_fd=self._root, dst_dir_fd=directory, follow_symlinks=False)
        else:
            self._link_deep(names, copy.name, directory, name)
        copy.names_left -= 1
        if copy.names_left == 0:
            del self._copies[status.st_dev, status.st_ino]
        return True

    def knows(self, status: os.stat_result) -> bool:
        """Whether the inode has a copy."""
        return (status.st_dev, status.st_ino) in self._copies

    def record(self, status: os.stat_result, place: TreePath, name: str) -> None:
        """Records the first name of the inode's copy."""
        self._copies[status.st_dev, status.st_ino] = _Copy(place, name, status.st_nlink - 1)

    def note_outside(self, notes: Notes) -> None:
        """Notes each inode that has further names outside the tree: its copy is a file of its own."""
        for copy in self._copies.values():
            notes.add("hard link to a name outside the tree", copy.place, copy.name)

    def _link_deep(self, names: list[str], first: str, directory: int, name: str) -> None:
        holder = os.open(".", OPEN_DIRECTORY, dir_fd=self._root)
        try:
            for each in names:
                deeper = os.open(each, OPEN_DIRECTORY, dir_fd=holder)
                os.close(holder)
                holder = deeper
            os.link(first, name, src_dir_fd=holder, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(holder)
