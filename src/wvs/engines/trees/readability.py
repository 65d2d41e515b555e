"""A look for entries that the service may not read: before a freeze, so that no agent stops for a clone that must fail.

A service with root's rights needs no look. Any other one asks the kernel about each entry by `faccessat2`, without a
stat: far less than the stamp of the same tree. Agents write meanwhile; what changes under the look is left to the
clone, which finds every unreadable entry in any case.
"""

import os
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, TreeDir
from wvs.engines.errors import EngineError, UnreadableError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, open_unseen
from wvs.engines.paths import ROOT
from wvs.engines.trees.descent import UNREADABLE_HINT, Level, TreePath, descend, open_subdirectory, owner_of

_NAMED: Final = 5
_CAP_DAC_OVERRIDE: Final = 1
_CAP_DAC_READ_SEARCH: Final = 2
_CAP_FOWNER: Final = 3


def require_readable(tree: TreeDir, cancel: Cancel) -> None:
    """Raises `UnreadableError` with the number of unreadable entries, the first ones and their owners."""
    if reads_everything():
        return
    look = _Look(cancel)
    try:
        look.run(tree)
    except OSError as error:
        raise from_os_error(error, ErrorCode.CLONE_FAILED, f"reading {tree.root_path}") from error
    if look.count:
        shown = ", ".join(look.first) + (f" and {look.count - _NAMED} more" if look.count > _NAMED else "")
        detail = f"the service (uid {os.geteuid()}) may not read {shown} (in {tree.root_path})"
        raise UnreadableError(ErrorCode.CLONE_FAILED, detail, UNREADABLE_HINT, retryable=False)


def reads_everything() -> bool:
    """Whether no permission stops this process; root in a user namespace may not read files of users outside it."""
    return _has_capability(_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH)


def owns_everything() -> bool:
    """Whether this process may do what only an owner may."""
    return _has_capability(_CAP_FOWNER)


def _has_capability(*numbers: int) -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as lines:
        if lines.readline().split() != ["0", "0", "4294967295"]:
            return False
    with open("/proc/thread-self/status", encoding="utf-8", errors="replace") as lines:
        effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return any(effective >> number & 1 for number in numbers)


class _Look:
    def __init__(self, cancel: Cancel) -> None:
        self._cancel = cancel
        self._looked = 0
        self.count = 0
        self.first: list[str] = []

    def run(self, tree: TreeDir) -> None:
        try:
            root = open_unseen(tree.descriptor, ROOT, OPEN_DIRECTORY)
        except FileNotFoundError as error:
            raise EngineError(ErrorCode.TREE_MISSING, f"{tree.root_path} is missing", retryable=False) from error
        try:
            descend(Level(TreePath(None, ""), [root]), self._enter, self._visit, self._cancel)
        except EngineError as error:
            if error.code is not ErrorCode.TORN_CLONE:
                raise

    def _enter(self, parent: Level, name: str) -> Level | None:
        try:
            return Level(TreePath(parent.place, name), [open_subdirectory(parent, name)])
        except UnreadableError:
            self._add(parent, name)
        except EngineError as error:
            if error.code is not ErrorCode.TORN_CLONE:
                raise
        return None

    def _visit(self, level: Level) -> None:
        with os.scandir(level.source) as entries:
            for entry in entries:
                self._looked += 1
                if self._looked % 256 == 0:
                    self._cancel.check()
                if entry.is_dir(follow_symlinks=False):
                    level.subdirectories.append(entry.name)
                elif entry.is_file(follow_symlinks=False) and not _may_read(level.source, entry.name):
                    self._add(level, entry.name)

    def _add(self, level: Level, name: str) -> None:
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(f"{level.place.shown(name)} ({owner_of(level, name)})")


def _may_read(directory: int, name: str) -> bool:
    """False only if the entry is there and a right is missing."""
    if os.access(name, os.R_OK, dir_fd=directory, effective_ids=True, follow_symlinks=False):
        return True
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except PermissionError:
        return False
    except OSError:
        return True
    return False
