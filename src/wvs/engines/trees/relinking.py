"""Restores hard links inside a clone in which every name became a file of its own."""

import itertools
import os
import stat
from collections.abc import Callable
from functools import partial

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, TreeDir
from wvs.engines.errors import from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, open_unseen
from wvs.engines.paths import ROOT
from wvs.engines.trees.descent import Level, TreePath, descend, open_subdirectory, unreadable
from wvs.engines.trees.hardlinks import HardLinks
from wvs.engines.trees.notes import Notes
from wvs.engines.trees.specials import make_special


class _Pair(Level):
    """A directory of the source and its clone. If links changed the clone, `complete` restores its times."""

    changed = False

    def complete(self) -> None:
        if self.changed:
            os.utime(self.descriptors[1], ns=(self.status.st_atime_ns, self.status.st_mtime_ns))


def relink(source: TreeDir, target: TreeDir, notes: Notes, cancel: Cancel) -> None:
    """Links those names in the root of `target` that are linked in the root of `source`. Raises `EngineError`."""
    try:
        _Relinking(target, notes).run(source, target, cancel)
    except OSError as error:
        raise from_os_error(error, ErrorCode.CLONE_FAILED, f"linking in {target.root_path}") from error


class _Relinking:
    def __init__(self, target: TreeDir, notes: Notes) -> None:
        self._notes = notes
        self._root = os.open(ROOT, OPEN_DIRECTORY, dir_fd=target.descriptor)
        self._links = HardLinks(self._root)

    def run(self, source: TreeDir, target: TreeDir, cancel: Cancel) -> None:
        try:
            descriptors = [open_unseen(source.descriptor, ROOT, OPEN_DIRECTORY)]
            descriptors.append(os.open(ROOT, OPEN_DIRECTORY, dir_fd=target.descriptor))
            descend(_Pair(TreePath(None, ""), descriptors), self._enter, self._visit, cancel)
            self._links.note_outside(self._notes)
        finally:
            os.close(self._root)

    def _enter(self, above: _Pair, name: str) -> _Pair:
        descriptors = [open_subdirectory(above, name)]
        try:
            descriptors.append(os.open(name, OPEN_DIRECTORY, dir_fd=above.descriptors[1]))
        except BaseException:
            os.close(descriptors[0])
            raise
        return _Pair(TreePath(above.place, name), descriptors)

    def _visit(self, pair: _Pair) -> None:
        with os.scandir(pair.source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pair.subdirectories.append(entry.name)
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    raise unreadable(error, pair, entry.name) from error
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) and not stat.S_ISSOCK(status.st_mode):
                    self._restore(pair, entry.name, status)

    def _restore(self, pair: _Pair, name: str, status: os.stat_result) -> None:
        directory = pair.descriptors[1]
        if self._links.knows(status):
            self._replace(pair, name, lambda new_name: self._links.link(status, directory, new_name))
            return
        if not stat.S_ISREG(status.st_mode):
            # `juicefs clone` gives the copy of a symlink the link count of the original; a new one starts at 1.
            note = partial(self._notes.add, place=pair.place, name=name)
            directories = (pair.source, directory)
            self._replace(pair, name, lambda new_name: make_special(directories, name, status, note, new_name))
        self._links.record(status, pair.place, name)

    def _replace(self, pair: _Pair, name: str, make: Callable[[str], object]) -> None:
        directory = pair.descriptors[1]
        for number in itertools.count():
            new_name = f".wvs-link-{number}"
            try:
                make(new_name)
                os.rename(new_name, name, src_dir_fd=directory, dst_dir_fd=directory)
            except FileExistsError:
                continue
            except PermissionError:
                self._notes.add("hard link", pair.place, name)
                return
            pair.changed = True
            return
