"""Which files a process has mapped shared and writable: by the kernel's search of its mappings, or from their list."""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final

_PROCMAP_QUERY: Final = 0xC0686611
_PROCMAP: Final = struct.Struct("@9Q4I2Q")
"""The number and the argument of an ioctl of /proc/PID/maps: PROCMAP_QUERY of the kernel's fs.h, since Linux 6.11."""
_NEXT_WRITABLE_SHARED_FILE: Final = 0x02 | 0x08 | 0x10 | 0x20
"""VMA_WRITABLE, VMA_SHARED, COVERING_OR_NEXT_VMA and FILE_BACKED_VMA of its query flags."""
_LONGEST_NAME: Final = 4096


def mapped_shared(thread: str) -> Iterator[str]:
    """The files that a process or thread, a directory below /proc, has mapped shared and writable.

    Names may come more than once. Raises `OSError`: the process has ended, or this one may not examine it.
    """
    maps = os.open(f"/proc/{thread}/maps", os.O_RDONLY)
    try:
        yield from _named_mappings(maps)
    except _CannotSearch:
        for line in _all_of(maps).split(b"\n"):
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[1][3:4] == b"s" and b"w" in fields[1]:
                yield os.fsdecode(fields[5].replace(b"\\012", b"\n"))
    finally:
        os.close(maps)


class _CannotSearch(Exception):
    """The kernel has no search of mappings, or the path of a file is longer than a search can show."""


def _named_mappings(maps: int) -> Iterator[str]:
    """The files of the writable shared mappings behind an open `maps`, by the kernel's search."""
    name = ctypes.create_string_buffer(_LONGEST_NAME)
    address = 0
    while True:
        query = bytearray(_PROCMAP.size)
        _PROCMAP.pack_into(
            *(query, 0, _PROCMAP.size, _NEXT_WRITABLE_SHARED_FILE, address, *(0,) * 6),
            *(0, 0, _LONGEST_NAME, 0, ctypes.addressof(name), 0),
        )
        try:
            fcntl.ioctl(maps, _PROCMAP_QUERY, query)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):  # no further mapping, no memory any more
                return
            raise _CannotSearch from error
        yield os.fsdecode(name.value)
        address = _PROCMAP.unpack_from(query)[4]


def _all_of(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()
