"""Removes a tree to which a process may still write: nothing outside the tree, never through a link, in bounded time.

Removal works in passes. A pass removes the entries that it finds, except those that a writer changes at the same time.
From the second pass on it first seizes the remaining directories, so that an unprivileged writer cannot win again.
"""

import errno
import os
import shlex
import stat
import time
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, TreeDir
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, open_beneath, rename_noreplace
from wvs.engines.mounts import mount_of
from wvs.engines.subvolumes import unlock
from wvs.engines.swaps import is_swap_file
from wvs.engines.trees.descent import TreePath
from wvs.engines.trees.forcing import forced, is_fixed, seize
from wvs.engines.trees.jobs import RACED, BatchFailure, BatchResult, unlink_batch
from wvs.engines.trees.worker_pool import WorkerPool

_BATCH: Final = 64
_DEEPEST: Final = 64
_PASSES: Final = 100
_PAUSE_S: Final = 0.01
_NOT_EMPTY: Final = (errno.ENOTEMPTY, errno.EEXIST)


class _Doomed:
    """A directory that is being removed. Its holders: the walk, each batch of its entries, each directory below it."""

    def __init__(self, above: "_Doomed | None", descriptor: int, name: str, tree: str = "") -> None:
        """`tree`: the path of the directory that is to be emptied; for the first one, which has no directory above."""
        self.above = above
        self.tree: str = above.tree if above else tree
        self.place = TreePath(above.place if above else None, name)
        self.depth: int = above.depth + 1 if above else 0
        self.descriptor = descriptor
        self.subdirectories: list[str] = []
        self._holders = 1
        if above is not None:
            above.hold()

    def hold(self) -> None:
        self._holders += 1

    def release(self, *, remove: bool = True) -> None:
        """Removes a holder. The last one closes the directory, removes it from its parent, and releases the parent."""
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
    """Empties the directory of `tree`. Re-entrant. Raises CANCELLED, or REMOVE_FAILED with the entry that resists.

    Protections of the content do not stop it if the service has the right to take them off.
    """
    removal = _Removal(tree, workers, cancel)
    try:
        for attempt in range(_PASSES):
            if removal.run(seizing=attempt > 0):
                return
            time.sleep(_PAUSE_S if attempt > 1 else 0)
    except OSError as error:
        raise from_os_error(error, ErrorCode.REMOVE_FAILED, f"removing {tree.path}") from error
    raise EngineError(
        ErrorCode.REMOVE_FAILED,
        f"{tree.path} is not empty after {_PASSES} passes: a process still writes to it",
        f"end the process (fuser -v {tree.path}), then retry the task",
    )


class _Removal:
    def __init__(self, tree: TreeDir, workers: int, cancel: Cancel) -> None:
        self._tree = tree
        self._workers = workers
        self._cancel = cancel
        self._moved_up = 0
        self._seizing = False

    def run(self, *, seizing: bool) -> bool:
        """Runs one pass; True if the tree is empty now."""
        self._seizing = seizing
        self._top = _Doomed(None, self._tree.descriptor, "", self._tree.path)
        with WorkerPool(self._workers, self._cancel, lambda _: None) as self._pool:
            try:
                self._walk()
                self._finish()
            finally:
                for directory in self._pool.waiting():
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
        """Opens a directory; None if it vanished, or if it lay too deep and was moved to the top."""
        if above.depth >= _DEEPEST:
            self._move_up(above, name)
            return None
        try:
            descriptor = _open_directory(above.descriptor, name)
        except OSError as error:
            if error.errno in RACED:
                return None
            raise _resists(error, above, name) from error
        try:
            unlock(descriptor)
            if self._seizing:
                seize(descriptor)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise _resists(error, above, name) from error
            raise
        return _Doomed(above, descriptor, name)

    def _move_up(self, above: _Doomed, name: str) -> None:
        # This bounds the open descriptors at any depth. Only the service can write to the top: a taken name is its own.
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
        for done_directory, done in self._pool.results():
            _absorb(done_directory, done)
        if self._pool.offer("unlink", [directory.descriptor], ([], names), directory):
            directory.hold()
        else:
            done = unlink_batch(directory.descriptor, names)
            if done.failure is not None:
                raise _failed(done.failure, directory)

    def _finish(self) -> None:
        for directory, done in self._pool.remaining():
            _absorb(directory, done)


def _absorb(directory: _Doomed, done: BatchResult) -> None:
    directory.release(remove=done.failure is None)
    if done.failure is not None:
        raise _failed(done.failure, directory)


def _failed(failure: BatchFailure, directory: _Doomed) -> EngineError:
    return _resists(OSError(failure.error_number, os.strerror(failure.error_number)), directory, failure.name)


def _remove_directory(above: _Doomed, name: str) -> None:
    try:
        forced(os.rmdir, above.descriptor, name)
    except OSError as error:
        if error.errno not in RACED and error.errno not in _NOT_EMPTY:
            raise _resists(error, above, name) from error


def _open_directory(above: int, name: str) -> int:
    try:
        return open_beneath(above, name, OPEN_DIRECTORY)
    except PermissionError:
        seize(above)
        closed = open_beneath(above, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # By descriptor: by name, chmod would follow a link that took the place of the directory.
            os.chmod(f"/proc/self/fd/{closed}", stat.S_IRWXU)
        finally:
            os.close(closed)
        return open_beneath(above, name, OPEN_DIRECTORY)


def _rename_up(above: int, name: str, top: int, new_name: str) -> None:
    try:
        rename_noreplace(above, name, top, new_name)
    except PermissionError:
        # The rename also writes to the directory itself: its `..` changes.
        directory = _open_directory(above, name)
        try:
            seize(directory)
        finally:
            os.close(directory)
        rename_noreplace(above, name, top, new_name)


def _resists(error: OSError, directory: _Doomed, name: str) -> EngineError:
    """The error for an entry that cannot be removed: why, and the command that helps."""
    shown = directory.place.shown(name)
    if error.errno in (errno.EXDEV, errno.EBUSY):
        return _lasting(directory, f"{shown} is a mount point or in use by the kernel", "unmount it")
    if error.errno not in (errno.EPERM, errno.EACCES, errno.EROFS) or mount_of(directory.descriptor).read_only:
        return from_os_error(error, ErrorCode.REMOVE_FAILED, f"removing {shown}").inside(directory.tree)
    if is_swap_file(directory.descriptor, name):
        return _lasting(directory, f"{shown} is an active swap file", "swapoff it (swapon --show lists its path)")
    me = f"the service runs as uid {os.geteuid()}"
    if error.errno == errno.EROFS:
        why = f"{shown} is a read-only btrfs subvolume that the service may not change: {me}"
        place = shlex.quote(f"{directory.tree}/{shown}")
        return _lasting(directory, why, f"as root: btrfs property set -f -ts {place} ro false")
    if is_fixed(directory.descriptor, name):
        why = f"{shown} or its directory is immutable or append-only, and the service may not change that: {me}"
    else:
        why = f"{shown} is in a directory of uid {os.fstat(directory.descriptor).st_uid}, and {me}"
    path = shlex.quote(directory.tree)
    return _lasting(directory, why, f"as root: chattr -R -f -i -a {path}; rm -rf --one-file-system {path}")


def _lasting(directory: _Doomed, why: str, cure: str) -> EngineError:
    hint = f"{cure}; then retry the task if one failed. The sweeper tries again about every minute"
    return EngineError(ErrorCode.REMOVE_FAILED, f"{why} (in {directory.tree})", hint, retryable=False)
