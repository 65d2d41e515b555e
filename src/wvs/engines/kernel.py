"""System calls by descriptor, most of which `os` does not offer. Each raises `OSError` and lets other threads run.

`openat2` needs Linux 5.6, and a sandbox may filter it; `open_beneath` then takes the same steps one by one.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.syncfs.argtypes = (ctypes.c_int,)

_SYS_OPENAT2: Final = 437  # the same number on every architecture since Linux 5.6
_RESOLVE_NO_XDEV: Final = 0x01
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2

FICLONE: Final = 0x40049409
FS_IOC_GETFLAGS: Final = 0x80086601
FS_IOC_SETFLAGS: Final = 0x40086602
FS_APPEND_FL: Final = 0x20
FS_IMMUTABLE_FL: Final = 0x10
FS_ENCRYPT_FL: Final = 0x00000800
FS_NOCOW_FL: Final = 0x00800000
_FS_IOC_FSGETXATTR: Final = 0x801C581F
_FSXATTR: Final = struct.Struct("<IIIII8x")
_FS_IOC_GET_ENCRYPTION_POLICY_EX: Final = 0xC0096616
_FS_IOC_SET_ENCRYPTION_POLICY: Final = 0x800C6613
_POLICY_SIZE: Final = 24
_NO_SUCH_IOCTL: Final = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO that was put in a file's place must not block the open.
OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_SIZE: Final = ctypes.sizeof(_OpenHow)
_RESOLVE: Final = _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
_hows: dict[int, _OpenHow] = {}


def _raise_errno(*names: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), *names)


def _openat2(directory: int, name: str, flags: int) -> int:
    how = _hows.get(flags) or _hows.setdefault(flags, _OpenHow(flags, 0, _RESOLVE))
    while True:
        descriptor: int = _libc.syscall(_SYS_OPENAT2, directory, os.fsencode(name), ctypes.byref(how), _HOW_SIZE)
        if descriptor >= 0:
            return descriptor
        # EAGAIN is not retried: here it means another process's lease on the file (fcntl(2)), which can last 45 s.
        if ctypes.get_errno() != errno.EINTR:
            _raise_errno(name)


def _has_openat2() -> bool:
    here = os.open(".", OPEN_DIRECTORY)
    try:
        os.close(_openat2(here, ".", OPEN_DIRECTORY))
    except OSError:
        return False
    finally:
        os.close(here)
    return True


HAS_OPENAT2: Final = _has_openat2()


def mount_id(descriptor: int) -> int:
    """The id of the mount that `descriptor` is on, as in `/proc/self/mountinfo`."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise OSError(errno.ENOSYS, "the kernel does not show mount ids in fdinfo")


def _open_step_by_step(directory: int, name: str, flags: int) -> int:
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        # st_dev would miss a bind mount of the same filesystem.
        same_mount = mount_id(descriptor) == mount_id(directory)
    except BaseException:
        os.close(descriptor)
        raise
    if not same_mount:
        os.close(descriptor)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return descriptor


def open_beneath(directory: int, name: str, flags: int) -> int:
    """Opens the entry `name` of `directory` without following a link or crossing a mount point.

    `name` is one component. A link raises ELOOP (ENOTDIR with O_DIRECTORY), a mount point EXDEV.
    """
    if HAS_OPENAT2:
        return _openat2(directory, name, flags)
    return _open_step_by_step(directory, name, flags)


def open_unseen(directory: int, name: str, flags: int) -> int:
    """`open_beneath` that does not change the access time if the kernel allows that (owner or CAP_FOWNER only)."""
    try:
        return open_beneath(directory, name, flags | os.O_NOATIME)
    except PermissionError:
        return open_beneath(directory, name, flags)


def rename_noreplace(from_directory: int, from_name: str, to_directory: int, to_name: str) -> None:
    """Renames. Raises FileExistsError if the new name exists, where plain rename replaces an empty directory."""
    _renameat2(from_directory, from_name, to_directory, to_name, _RENAME_NOREPLACE)


def rename_exchange(one_directory: int, one_name: str, other_directory: int, other_name: str) -> None:
    """Exchanges two entries in one step. Raises FileNotFoundError unless both exist."""
    _renameat2(one_directory, one_name, other_directory, other_name, _RENAME_EXCHANGE)


def _renameat2(from_directory: int, from_name: str, to_directory: int, to_name: str, flags: int) -> None:
    if _libc.renameat2(from_directory, os.fsencode(from_name), to_directory, os.fsencode(to_name), flags) != 0:
        _raise_errno(from_name)


def sync_filesystem(descriptor: int) -> None:
    """`syncfs` of the filesystem of `descriptor`. Since Linux 5.8 it also reports write-back errors."""
    if _libc.syncfs(descriptor) != 0:
        _raise_errno()


def clone_file(source: int, target: int) -> None:
    """Makes `target` share all blocks of `source` (FICLONE)."""
    fcntl.ioctl(target, FICLONE, source)


def inode_flags(descriptor: int) -> int:
    """The `chattr` flags; 0 if the filesystem has no such flags."""
    try:
        answer = fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8))
    except OSError as error:
        if error.errno in _NO_SUCH_IOCTL:
            return 0
        raise
    return int(struct.unpack_from("I", answer)[0])


def set_inode_flags(descriptor: int, flags: int) -> None:
    """Sets the `chattr` flags to exactly `flags`."""
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("Ixxxx", flags))


def project_and_extents(descriptor: int) -> tuple[int, int, int]:
    """The project id and the hints for the size of extents (ioctl_xfs_fsgetxattr(2)); 0 without such fields."""
    try:
        answer = fcntl.ioctl(descriptor, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))
    except OSError as error:
        if error.errno in _NO_SUCH_IOCTL:
            return 0, 0, 0
        raise
    _, extent, _, project, shared_extent = _FSXATTR.unpack(answer)
    return project, extent, shared_extent


def copy_encryption_policy(source: int, target: int) -> None:
    """Encrypts the empty directory `target` as `source` is encrypted (linux/fscrypt.h)."""
    answer = bytearray(struct.pack("<Q", _POLICY_SIZE) + bytes(_POLICY_SIZE))
    fcntl.ioctl(source, _FS_IOC_GET_ENCRYPTION_POLICY_EX, answer)
    fcntl.ioctl(target, _FS_IOC_SET_ENCRYPTION_POLICY, bytes(answer[8:]))


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def exists(directory: int, name: str) -> bool:
    """Whether the directory has an entry of that name; a dangling link counts."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
