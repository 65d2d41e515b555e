"""Removing a tree that somebody may still write to: never outside it, never through a link, never endless.

The tree is emptied in passes. A pass removes what it meets and leaves what it cannot because of a race; the next one
first takes the remaining directories away from their owner, so that an unprivileged writer cannot win again.
"""

import errno
import os
import stat
import time
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, TreeDir
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.kernel import (
    FS_APPEND_FL,
    FS_IMMUTABLE_FL,
    OPEN_DIRECTORY,
    OPEN_FILE,
    inode_flags,
    open_beneath,
    rename_noreplace,
)
from wvs.engines.trees.descent import Place
from wvs.engines.trees.jobs import RACED, Done, Failure, take_away, unlink_batch
from wvs.engines.trees.worker_pool import Hands

_BATCH: Final = 64
_DEEPEST: Final = 64
_PASSES: Final = 100
_PAUSE_S: Final = 0.01
_NOT_EMPTY: Final = (errno.ENOTEMPTY, errno.EEXIST)


class _Doomed:
    """A directory on its way out. Its holders: the walk, each batch of its entries, each directory below."""

    def __init__(self, above: "_Doomed | None", descriptor: int, name: str) -> None:
        self.above = above
        self.place = Place(above.place if above else None, name)
        self.depth: int = above.depth + 1 if above else 0
        self.descriptor = descriptor
        self.subdirectories: list[str] = []
        self._holders = 1
        if above is not None:
            above.hold()

    def hold(self) -> None:
        self._holders += 1

    def release(self, *, remove: bool = True) -> None:
        """Lets go; the last one closes the directory, removes it from the one above, and lets go of that."""
        self._holders -= 1
        above = self.above
        if self._holders > 0 or above is None:
            return
        os.close(self.descriptor)
        try:
            if remove:
                _remove_directory(above, self.place.name)
        except BaseException:
            above.release(remove=False)
            raise
        above.release(remove=remove)


def remove_content(tree: TreeDir, workers: int, cancel: Cancel) -> None:
    """Empties the directory of `tree`. Re-entrant. Raises REMOVE_FAILED naming what resists, or CANCELLED."""
    removal = _Removal(tree, workers, cancel)
    try:
        for attempt in range(_PASSES):
            if removal.run(disown=attempt > 0):
                return
            time.sleep(_PAUSE_S if attempt > 1 else 0)
    except OSError as error:
        raise from_os_error(error, ErrorCode.REMOVE_FAILED, f"removing {tree.path}") from error
    raise EngineError(
        ErrorCode.REMOVE_FAILED,
        f"{tree.path} is not empty after {_PASSES} passes: something still writes to it",
        f"end the process (fuser -v {tree.path}), then retry the task",
    )


class _Removal:
    def __init__(self, tree: TreeDir, workers: int, cancel: Cancel) -> None:
        self._tree = tree
        self._workers = workers
        self._cancel = cancel
        self._moved_up = 0
        self._disown = False

    def run(self, *, disown: bool) -> bool:
        """One pass; whether the tree is empty now."""
        self._disown = disown
        self._top = _Doomed(None, self._tree.descriptor, "")
        with Hands(self._workers, self._cancel, lambda _: None) as self._hands:
            try:
                self._walk()
                self._finish()
            finally:
                for directory in self._hands.waiting():
                    directory.release(remove=False)
        with os.scandir(self._tree.descriptor) as left:
            return next(left, None) is None

    def _walk(self) -> None:
        stack = [self._top]
        try:
            self._list(self._top)
            while stack:
                self._cancel.check()
                directory = stack[-1]
                if not directory.subdirectories:
                    stack.pop().release()
                    continue
                below = self._enter(directory, directory.subdirectories.pop())
                if below is not None:
                    stack.append(below)
                    self._list(below)
        except BaseException:
            for directory in reversed(stack):
                directory.release(remove=False)
            raise

    def _list(self, directory: _Doomed) -> None:
        names: list[str] = []
        with os.scandir(directory.descriptor) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directory.subdirectories.append(entry.name)
                    continue
                names.append(entry.name)
                if len(names) >= _BATCH:
                    self._do(directory, names)
                    names = []
        if names:
            self._do(directory, names)

    def _enter(self, above: _Doomed, name: str) -> _Doomed | None:
        """Opens a directory; None if it vanished, or was moved to the top because it lies too deep."""
        if above.depth >= _DEEPEST:
            self._move_up(above, name)
            return None
        try:
            descriptor = _open_directory(above.descriptor, name)
        except OSError as error:
            if error.errno in RACED:
                return None
            raise _resists(error, above, name) from error
        if self._disown:
            take_away(descriptor)
        return _Doomed(above, descriptor, name)

    def _move_up(self, above: _Doomed, name: str) -> None:
        # Bounds the open descriptors for any depth; the top belongs to the service, so the new name is free or ours.
        while True:
            self._moved_up += 1
            new_name = f"deep.{self._moved_up}"
            try:
                _rename_up(above.descriptor, name, self._top.descriptor, new_name)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno in RACED:
                    return
                raise _resists(error, above, name) from error
            self._top.subdirectories.append(new_name)
            return

    def _do(self, directory: _Doomed, names: list[str]) -> None:
        self._cancel.check()
        for done_directory, done in self._hands.results():
            _absorb(done_directory, done)
        if self._hands.offer("unlink", [directory.descriptor], ([], names), directory):
            directory.hold()
        else:
            done = unlink_batch(directory.descriptor, names)
            if done.failure is not None:
                raise _failed(done.failure, directory)

    def _finish(self) -> None:
        for directory, done in self._hands.remaining():
            _absorb(directory, done)


def _absorb(directory: _Doomed, done: Done) -> None:
    directory.release(remove=done.failure is None)
    if done.failure is not None:
        raise _failed(done.failure, directory)


def _failed(failure: Failure, directory: _Doomed) -> EngineError:
    return _resists(OSError(failure.error_number, os.strerror(failure.error_number)), directory, failure.name)


def _remove_directory(above: _Doomed, name: str) -> None:
    try:
        try:
            os.rmdir(name, dir_fd=above.descriptor)
        except PermissionError:
            take_away(above.descriptor)
            os.rmdir(name, dir_fd=above.descriptor)
    except OSError as error:
        if error.errno not in RACED and error.errno not in _NOT_EMPTY:
            raise _resists(error, above, name) from error


def _open_directory(above: int, name: str) -> int:
    try:
        return open_beneath(above, name, OPEN_DIRECTORY)
    except PermissionError:
        take_away(above)
        closed = open_beneath(above, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # By the descriptor: by name, chmod would follow a link that was put in the directory's place.
            os.chmod(f"/proc/self/fd/{closed}", stat.S_IRWXU)
        finally:
            os.close(closed)
        return open_beneath(above, name, OPEN_DIRECTORY)


def _rename_up(above: int, name: str, top: int, new_name: str) -> None:
    try:
        rename_noreplace(above, name, top, new_name)
    except PermissionError:
        # A directory that changes its parent is written to itself: its `..` changes.
        directory = _open_directory(above, name)
        try:
            take_away(directory)
        finally:
            os.close(directory)
        rename_noreplace(above, name, top, new_name)


def _resists(error: OSError, directory: _Doomed, name: str) -> EngineError:
    shown = directory.place.shown(name)
    match error.errno:
        case errno.EXDEV | errno.EBUSY:
            return EngineError(
                ErrorCode.REMOVE_FAILED,
                f"{shown} is a mount point or in use by the kernel",
                "unmount it, then retry the task",
                retryable=False,
            )
        case errno.EPERM | errno.EACCES if _is_immutable(directory.descriptor, name):
            return EngineError(
                ErrorCode.REMOVE_FAILED,
                f"{shown} or its directory is immutable or append-only",
                "clear the flags (chattr -R -i -a on the tree), then retry the task",
                retryable=False,
            )
        case _:
            return from_os_error(error, ErrorCode.REMOVE_FAILED, f"removing {shown}")


def _is_immutable(directory: int, name: str) -> bool:
    fixed = FS_IMMUTABLE_FL | FS_APPEND_FL
    if inode_flags(directory) & fixed:
        return True
    try:
        entry = open_beneath(directory, name, OPEN_FILE)
    except OSError:
        return False
    try:
        return bool(inode_flags(entry) & fixed)
    finally:
        os.close(entry)
