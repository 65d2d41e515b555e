"""The two ways to fill a new file: to share the blocks of the original, or to copy them."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import EngineError
from wvs.engines.kernel import FS_NOCOW_FL, clone_file, inode_flags, set_inode_flags

Pulse = Callable[[int], None]
"""Called during a long file with the bytes done since the last call; raises to cancel."""

Fill = Callable[[int, int, os.stat_result, Pulse], int]
"""Fills the new, empty `target` with the content of `source`; returns the bytes that it has not passed to `pulse`."""

Filling = Literal["copy", "reflink"]

_PIECE: Final = 64 * 1024 * 1024
_BUFFER: Final = 1024 * 1024
_SPARSE_FROM: Final = 1024 * 1024
_NOT_IN_KERNEL: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOSYS)


def share_blocks(source: int, target: int, status: os.stat_result, pulse: Pulse) -> int:  # noqa: ARG001 - one call
    """FICLONE. On btrfs a file without copy-on-write shares blocks only with another such file."""
    try:
        clone_file(source, target)
    except OSError as error:
        flags = inode_flags(source)
        if error.errno != errno.EINVAL or not flags & FS_NOCOW_FL:
            raise
        set_inode_flags(target, inode_flags(target) | FS_NOCOW_FL)
        clone_file(source, target)
    return status.st_size


def copy_content(source: int, target: int, status: os.stat_result, pulse: Pulse) -> int:
    """Copies the data and keeps the holes, up to the size at the time of opening: a growing file ends too."""
    size = status.st_size
    # Most files are small and have no holes: one call suffices, where a search for holes would take two more.
    if size < _SPARSE_FROM and status.st_blocks * 512 >= size:
        _copy_range(source, target, 0, size, pulse)
        return size
    end = pulsed = 0
    for start, end in _data(source, size):
        pulsed += _copy_range(source, target, start, end, pulse)
    if end < size or size == 0:
        os.ftruncate(target, size)
    return size - pulsed


FILLINGS: Final[Mapping[Filling, Fill]] = {"copy": copy_content, "reflink": share_blocks}


def _data(source: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data, as (start, end)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if start >= size:
            return
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        yield start, end


def _copy_range(source: int, target: int, start: int, end: int, pulse: Pulse) -> int:
    """Copies one part; returns the bytes that it has passed to `pulse`: all but the last piece."""
    at = start
    pulsed = 0
    while at < end:
        moved = _copy_piece(source, target, at, min(_PIECE, end - at))
        if moved == 0:
            raise EngineError(ErrorCode.TORN_CLONE, "the file became shorter while it was read")
        at += moved
        if at < end:
            pulse(moved)
            pulsed += moved
    return pulsed


def _copy_piece(source: int, target: int, at: int, size: int) -> int:
    try:
        return os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno not in _NOT_IN_KERNEL:
            raise
    data = os.pread(source, min(size, _BUFFER), at)
    return os.pwrite(target, data, at) if data else 0
