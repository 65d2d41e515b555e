"""The engine `copy`: reads and writes every byte, inside the kernel where it can. Works on any POSIX filesystem."""

import errno
import os
from collections.abc import Iterator
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import METADATA_PER_FILE, Totals, TreeDir
from wvs.engines.errors import EngineError
from wvs.engines.files import FileEngine, scratch_file
from wvs.engines.treecopy import Pulse

_PIECE: Final = 64 * 1024 * 1024
_BUFFER: Final = 1024 * 1024
_SPARSE_FROM: Final = 1024 * 1024
_NOT_IN_KERNEL: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOSYS)


class CopyEngine(FileEngine):
    """Clones in time and space that grow with the content."""

    name = "copy"

    def fill(self, source: int, target: int, status: os.stat_result, pulse: Pulse) -> None:
        """Copies the data and leaves the holes. Up to the size at the time of opening: a growing file ends too."""
        size = status.st_size
        end = copied = 0
        for start, end in _data(source, status):
            _copy_range(source, target, start, end, pulse)
            copied += end - start
        if end < size:
            os.ftruncate(target, size)
        if copied < size:
            pulse(size - copied)

    def trial(self, directory: TreeDir) -> str:
        """Copies a scratch file."""
        with scratch_file(directory) as (source, _), scratch_file(directory) as (target, _):
            os.write(source, bytes(4096))
            _copy_range(source, target, 0, 4096, lambda _: None)
        return "files can be written and read"

    def space_needed(self, totals: Totals | None) -> int:
        """All of it once more."""
        return totals.files * METADATA_PER_FILE + totals.allocated if totals is not None else 0


def _data(source: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data, as (start, end)."""
    size = status.st_size
    # Small and fully allocated is the common case; two system calls less for each such file.
    if size < _SPARSE_FROM and status.st_blocks * 512 >= size:
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        if start < size:
            yield start, end


def _copy_range(source: int, target: int, start: int, end: int, pulse: Pulse) -> None:
    at = start
    while at < end:
        moved = _copy_piece(source, target, at, min(_PIECE, end - at))
        if moved == 0:
            raise EngineError(ErrorCode.TORN_CLONE, "a file became shorter while it was read")
        at += moved
        pulse(moved)


def _copy_piece(source: int, target: int, at: int, size: int) -> int:
    try:
        return os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno not in _NOT_IN_KERNEL:
            raise
    data = os.pread(source, min(size, _BUFFER), at)
    return os.pwrite(target, data, at) if data else 0
