"""A disk that remembers every write and every flush: one file, served by FUSE, for a loop device.

    python recorded_disk.py FUSE OUTSIDE IMAGE LOG

FUSE is an open /dev/fuse that is mounted over an empty file already, OUTSIDE a mount namespace without that mount, and
IMAGE the disk's content. LOG grows by a record for each request before the request is answered. While the file
LOG.faults names a request (`read` or `write`), the disk answers it with EIO.

The server lives outside because a namespace's last process unmounts what is left there when it ends: one that unmounts
a filesystem on its own disk would wait for itself, for ever.

It speaks the kernel's protocol (linux/fuse.h, version 7.31) by itself: the bindings on PyPI all want a libfuse, which a
machine with a kernel and Python need not have, and this disk needs few requests of it.
"""

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

_BIG_WRITES: Final = 1 << 5
_MAX_WRITE: Final = 128 * 1024
_CLONE_NEWNS: Final = 0x00020000

_IN: Final = struct.Struct("<IIQQIIIHH")
_OUT: Final = struct.Struct("<IiQ")
_INIT_IN: Final = struct.Struct("<IIII")
_INIT_OUT: Final = struct.Struct("<IIIIHHIIHHII24x")
_IO_IN: Final = struct.Struct("<QQIIQII")
_WRITE_OUT: Final = struct.Struct("<II")
_OPEN_OUT: Final = struct.Struct("<QIi")
_ATTR_OUT: Final = struct.Struct("<QIIQQQQQQIIIIIIIIII")
_STATFS_OUT: Final = struct.Struct("<QQQQQIIII24x")
_RECORD: Final = struct.Struct("<QI")
_FLUSHED: Final = (1 << 64) - 1


class _Op(IntEnum):
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    ACCESS = 34
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


_UNANSWERED: Final = (_Op.FORGET, _Op.BATCH_FORGET, _Op.INTERRUPT)


class Record(NamedTuple):
    """One request to the disk. `ends_at`: the log's length behind it; `data` is None for a flush."""

    ends_at: int
    offset: int
    data: bytes | None


def records(log: Path) -> Iterator[Record]:
    """What the disk was asked, in the order in which it answered."""
    with log.open("rb") as file:
        while header := file.read(_RECORD.size):
            offset, size = _RECORD.unpack(header)
            data = None if offset == _FLUSHED else file.read(size)
            yield Record(file.tell(), offset, data)


class _Disk:
    def __init__(self, fuse: int, outside: int, image: str, log: str) -> None:
        self._fuse = fuse
        self._image = os.open(image, os.O_RDWR)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._directory = os.open(os.path.dirname(log), os.O_RDONLY | os.O_DIRECTORY)
        self._faults = f"{os.path.basename(log)}.faults"
        if ctypes.CDLL(None, use_errno=True).setns(outside, _CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        os.close(outside)

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._fuse, _MAX_WRITE + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                raise
            _, operation, unique, *_ = _IN.unpack_from(request)
            if operation in _UNANSWERED:
                continue
            try:
                answer, failed = self._answer(operation, request[_IN.size :]), 0
            except OSError as error:
                answer, failed = b"", -(error.errno or errno.EIO)
            os.write(self._fuse, _OUT.pack(_OUT.size + len(answer), failed, unique) + answer)

    def _answer(self, operation: int, body: bytes) -> bytes:
        match operation:
            case _Op.INIT:
                return _hello(body)
            case _Op.GETATTR | _Op.SETATTR:
                return self._attributes()
            case _Op.OPEN:
                return _OPEN_OUT.pack(1, 0, 0)
            case _Op.READ:
                self._may_fail("read")
                _, offset, size, *_ = _IO_IN.unpack_from(body)
                return os.pread(self._image, size, offset)
            case _Op.WRITE:
                self._may_fail("write")
                return self._write(body)
            case _Op.FSYNC:
                os.write(self._log, _RECORD.pack(_FLUSHED, 0))
                return b""
            case _Op.STATFS:
                return _STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)
            case _Op.RELEASE | _Op.FLUSH | _Op.ACCESS | _Op.DESTROY:
                return b""
            case _:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def _write(self, body: bytes) -> bytes:
        _, offset, size, *_ = _IO_IN.unpack_from(body)
        data = body[_IO_IN.size : _IO_IN.size + size]
        os.write(self._log, _RECORD.pack(offset, size) + data)
        return _WRITE_OUT.pack(os.pwrite(self._image, data, offset), 0)

    def _attributes(self) -> bytes:
        size = os.fstat(self._image).st_size
        times = (0,) * 6
        return _ATTR_OUT.pack(60, 0, 0, 1, size, size // 512, *times, stat.S_IFREG | 0o600, 1, 0, 0, 0, 4096, 0)

    def _may_fail(self, request: str) -> None:
        try:
            faults = os.open(self._faults, os.O_RDONLY, dir_fd=self._directory)
        except FileNotFoundError:
            return
        with open(faults, encoding="ascii") as file:
            failing = request in file.read().split()
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _hello(body: bytes) -> bytes:
    major, minor, readahead, flags = _INIT_IN.unpack_from(body)
    return _INIT_OUT.pack(major, min(minor, 31), readahead, flags & _BIG_WRITES, 16, 12, _MAX_WRITE, 1, 0, 0, 0, 0)


if __name__ == "__main__":
    _Disk(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]).serve()
