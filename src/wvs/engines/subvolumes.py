"""btrfs subvolumes by ioctl (linux/btrfs.h). Each call raises `OSError`.

The command-line tool is not used: `btrfs subvolume snapshot A B` nests the snapshot into an existing B and reports
success, where the ioctl fails with EEXIST (docs/adr/0020-btrfs-by-ioctl.md).
"""

import errno
import fcntl
import os
import stat
import struct
from typing import Final

import msgspec

_MAGIC: Final = 0x94
_WRITE, _READ = 1, 2


def _request(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | _MAGIC << 8 | number


_ARGS: Final = struct.Struct("<q4088s")
_ARGS_V2: Final = struct.Struct("<qQQ32s4040s")
_INFO: Final = struct.Struct("<Q256sQQQQ16s16s16sQQQQ64s64s")
_CHILDREN: Final = struct.Struct("<Q4080sB7x")
_LOOKUP: Final = struct.Struct("<QQ256s3824s")
_U64: Final = struct.Struct("<Q")

_SNAP_DESTROY: Final = _request(_WRITE, 15, _ARGS.size)
_SNAP_CREATE_V2: Final = _request(_WRITE, 23, _ARGS_V2.size)
_SUBVOL_CREATE_V2: Final = _request(_WRITE, 24, _ARGS_V2.size)
_SUBVOL_GETFLAGS: Final = _request(_READ, 25, _U64.size)
_SUBVOL_SETFLAGS: Final = _request(_WRITE, 26, _U64.size)
_START_SYNC: Final = _request(_READ, 24, _U64.size)
_WAIT_SYNC: Final = _request(_WRITE, 22, _U64.size)
_GET_SUBVOL_INFO: Final = _request(_READ, 60, _INFO.size)
_GET_SUBVOL_ROOTREF: Final = _request(_READ | _WRITE, 61, _CHILDREN.size)
_INO_LOOKUP_USER: Final = _request(_READ | _WRITE, 62, _LOOKUP.size)

_READ_ONLY: Final = 1 << 1
_ROOT_INODE: Final = 256


class SubvolumeInfo(msgspec.Struct, frozen=True):
    """What identifies a state of a subvolume. `changed_in` is the transaction of the latest change to its content."""

    id: int
    changed_in: int
    read_only: bool


def create_subvolume(directory: int, name: str) -> None:
    """Makes an empty, writable subvolume. Raises FileExistsError if the name exists."""
    fcntl.ioctl(directory, _SUBVOL_CREATE_V2, _arguments(0, name))


def create_snapshot(source: int, directory: int, name: str) -> None:
    """Makes a writable snapshot of the open subvolume `source`; durable. Raises FileExistsError if the name exists."""
    fcntl.ioctl(directory, _SNAP_CREATE_V2, _arguments(source, name))


def destroy_subvolume(directory: int, name: str) -> None:
    """Removes a subvolume's name; the kernel frees its blocks later. Raises ENOTEMPTY if it holds other subvolumes."""
    fcntl.ioctl(directory, _SNAP_DESTROY, bytearray(_ARGS.pack(0, os.fsencode(name))))


def is_subvolume(directory: int, name: str) -> bool:
    """Whether the entry, on btrfs, is the root of a subvolume. Raises FileNotFoundError if the entry is absent."""
    return _has_root_inode(os.stat(name, dir_fd=directory, follow_symlinks=False))


def unlock(directory: int) -> None:
    """Makes the subvolume writable of which `directory` is the root; does nothing for any other directory.

    Raises EROFS without the right.
    """
    if not _has_root_inode(os.fstat(directory)):
        return
    try:
        set_read_only(directory, read_only=False)
    except PermissionError as error:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS)) from error
    except OSError as error:
        # Another filesystem may give that inode number to any directory.
        if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _has_root_inode(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and status.st_ino == _ROOT_INODE


def set_read_only(subvolume: int, *, read_only: bool) -> None:
    """Seals or unseals a subvolume; durable on return."""
    flags = bytearray(_U64.size)
    fcntl.ioctl(subvolume, _SUBVOL_GETFLAGS, flags)
    (old,) = _U64.unpack(flags)
    new = old | _READ_ONLY if read_only else old & ~_READ_ONLY
    if new != old:
        fcntl.ioctl(subvolume, _SUBVOL_SETFLAGS, bytearray(_U64.pack(new)))


def subvolume_info(subvolume: int) -> SubvolumeInfo:
    """The state of the subvolume in the running transaction."""
    answer = bytearray(_INFO.size)
    fcntl.ioctl(subvolume, _GET_SUBVOL_INFO, answer)
    fields = _INFO.unpack(answer)
    return SubvolumeInfo(id=fields[0], changed_in=fields[9], read_only=bool(fields[5] & _READ_ONLY))


def commit_transaction(descriptor: int) -> None:
    """Waits until all that btrfs has recorded so far is on the disk; it does not write back dirty file data."""
    transaction = bytearray(_U64.size)
    fcntl.ioctl(descriptor, _START_SYNC, transaction)
    fcntl.ioctl(descriptor, _WAIT_SYNC, transaction)


def first_nested(subvolume: int) -> str | None:
    """The relative path of one subvolume nested in this one; None if it holds no other."""
    answer = bytearray(_CHILDREN.size)
    try:
        fcntl.ioctl(subvolume, _GET_SUBVOL_ROOTREF, answer)
    except OSError as error:
        # More than one answer has room for; the answer holds those that fit.
        if error.errno != errno.EOVERFLOW:
            raise
    _, children, count = _CHILDREN.unpack(answer)
    if count == 0:
        return None
    child, directory = struct.unpack_from("<QQ", children)
    return _path_of(subvolume, child, directory)


def _path_of(subvolume: int, child: int, directory: int) -> str:
    answer = bytearray(_LOOKUP.pack(directory, child, b"", b""))
    fcntl.ioctl(subvolume, _INO_LOOKUP_USER, answer)
    _, _, name, path = _LOOKUP.unpack(answer)
    return os.fsdecode(path.split(b"\0")[0] + name.split(b"\0")[0])


def _arguments(source: int, name: str) -> bytearray:
    return bytearray(_ARGS_V2.pack(source, 0, 0, b"", os.fsencode(name)))
