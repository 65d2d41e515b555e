"""Removal of entries that are protected: what the service's rights allow is done, by descriptor.

A tree that is being removed belongs to nobody any more, so its own protections count for nothing: modes, owners, the
flags of `chattr`, read-only subvolumes. A flag outlives the removal on an inode that has further names elsewhere.
"""

import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

from wvs.engines.kernel import (
    FS_APPEND_FL,
    FS_IMMUTABLE_FL,
    inode_flags,
    open_beneath,
    set_inode_flags,
)

FIXED: Final = FS_IMMUTABLE_FL | FS_APPEND_FL
_ENTRY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def forced(remove: Callable[..., None], directory: int, name: str) -> None:
    """Calls `os.unlink` or `os.rmdir`; if the kernel refuses, takes off the protections and calls it again."""
    try:
        remove(name, dir_fd=directory)
    except PermissionError:
        seize(directory)
        with _changeable(directory, name):
            remove(name, dir_fd=directory)


def seize(directory: int) -> None:
    """Makes a directory writable for the service alone, if the service has the rights to do so."""
    status = os.fstat(directory)
    # Without the rights nothing changes: the removal that follows raises the error that says why.
    with suppress(PermissionError):
        _clear_flags(directory)
        if status.st_uid != os.geteuid():
            os.chown(directory, os.geteuid(), -1)
        if stat.S_IMODE(status.st_mode) != stat.S_IRWXU:
            os.chmod(directory, stat.S_IRWXU)


def is_fixed(directory: int, name: str) -> bool:
    """Whether the directory or its entry is immutable or append-only."""
    if inode_flags(directory) & FIXED:
        return True
    with _opened(directory, name) as entry:
        return entry is not None and bool(inode_flags(entry) & FIXED)


@contextmanager
def _changeable(directory: int, name: str) -> Generator[None]:
    """Takes the entry's flags off for the block; they return to an inode that has names left."""
    with _opened(directory, name) as entry:
        flags = 0
        if entry is not None:
            with suppress(PermissionError):
                flags = _clear_flags(entry)
        try:
            yield
        finally:
            if entry is not None and flags and not _is_gone(entry):
                set_inode_flags(entry, flags)


def _clear_flags(descriptor: int) -> int:
    """Takes the flags off that protect an inode; returns the flags that it had if one of them did, else 0."""
    flags = inode_flags(descriptor)
    if not flags & FIXED:
        return 0
    set_inode_flags(descriptor, flags & ~FIXED)
    return flags


def _is_gone(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return status.st_nlink == 0 or stat.S_ISDIR(status.st_mode)


@contextmanager
def _opened(directory: int, name: str) -> Generator[int | None]:
    """The entry, open, if it is a file or a directory: to open anything else could have an effect."""
    try:
        place = open_beneath(directory, name, _ENTRY)
    except OSError:
        yield None
        return
    try:
        descriptor = _reopened(place)
    finally:
        os.close(place)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _reopened(place: int) -> int | None:
    if stat.S_IFMT(os.fstat(place).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return None
    try:
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
