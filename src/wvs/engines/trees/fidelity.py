"""Sets the attributes of a new file, directory or special file to those of its original.

Every attribute that cannot be kept is noted; none is dropped silently. The order matters: chown clears set-id bits and
capabilities, an ACL changes the mode's group bits, and each of these changes the times.
"""

import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import EngineError
from wvs.engines.kernel import FS_ENCRYPT_FL, copy_encryption_policy, inode_flags, project_and_extents

RecordNote = Callable[[str], None]
"""Records something that could not be kept, such as `owner`."""

_ACLS: Final = ("system.posix_acl_default", "system.posix_acl_access")
_FLAGS: Final[Mapping[int, str]] = {
    0x00000001: "+s secure deletion",
    0x00000002: "+u undeletable",
    0x00000004: "+c compressed",
    0x00000008: "+S synchronous",
    0x00000010: "+i immutable",
    0x00000020: "+a append-only",
    0x00000040: "+d no dump",
    0x00000080: "+A no access times",
    0x00004000: "+j journalled data",
    0x00008000: "+t no tail merging",
    0x00010000: "+D synchronous directory",
    0x00020000: "+T top of a hierarchy",
    0x00100000: "+V fs-verity",
    0x00800000: "+C no copy-on-write",
    0x02000000: "+x direct access",
    0x20000000: "+P project inheritance",
    0x40000000: "+F case-insensitive",
}
"""The flags of chattr(1) that a person sets (linux/fs.h). The kernel sets others by itself, to its own needs."""
_EVERY_FLAG: Final = sum(_FLAGS)
_CANNOT: Final = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL)


def keep_encryption(source: int, target: int) -> int:
    """Encrypts a new directory if its original is encrypted; call it before anything is written. Returns the flags.

    A file in an encrypted directory is encrypted from the start. A clone in clear text would put on the disk what its
    owner keeps off it, so without the encryption there is no clone: raises `EngineError`.
    """
    flags = inode_flags(source)
    if flags & FS_ENCRYPT_FL and not inode_flags(target) & FS_ENCRYPT_FL:
        try:
            copy_encryption_policy(source, target)
        except OSError as error:
            raise EngineError(
                ErrorCode.CLONE_FAILED,
                f"it is encrypted (fscrypt), and its clone cannot be ({os.strerror(error.errno or 0)})",
                "add its key as the service's user, or move it out of the workspace; then retry the task",
                retryable=False,
            ) from error
    return flags


def note_lost(source: int, target: int, flags: int, note: RecordNote) -> None:
    """Notes flags of the original, its project id and its extent sizes where the clone has others.

    They are not set: an immutable file would stand in an agent's way, and a project's quota is for the live tree.
    """
    flags &= _EVERY_FLAG
    if flags:
        lost = flags & ~inode_flags(target)
        for flag, name in _FLAGS.items():
            if lost & flag:
                note(f"flag {name}")
    was = project_and_extents(source)
    if any(was):
        now = project_and_extents(target)
        if was[0] != now[0]:
            note("project id")
        if was[1:] != now[1:]:
            note("extent size hint")


def copy_attributes(source: int, target: int, status: os.stat_result, flags: int, note: RecordNote) -> None:
    """Copies owner, xattrs (with ACLs and capabilities), mode and times between two open files or directories.

    `flags`: those of the original; the lost ones are noted.
    """
    note_lost(source, target, flags, note)
    mode = stat.S_IMODE(status.st_mode)
    # One fstat of the new file is cheaper than a needless change: each change is a transaction of the filesystem.
    made = os.fstat(target)
    if made.st_uid != status.st_uid or made.st_gid != status.st_gid:
        try:
            os.chown(target, status.st_uid, status.st_gid)
        except PermissionError:
            note("owner")
            mode = without_set_id(mode)
        made = None
    for attribute in os.listxattr(source):
        try:
            os.setxattr(target, attribute, os.getxattr(source, attribute))
        except OSError as error:
            note_attribute(error, attribute, note)
        made = None
    if made is None or stat.S_IMODE(made.st_mode) != mode:
        os.chmod(target, mode)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def without_set_id(mode: int) -> int:
    """`mode` for a file whose owner was not kept: a set-id bit would grant the rights of another owner."""
    return mode & ~(stat.S_ISUID | stat.S_ISGID)


def note_attribute(error: OSError, attribute: str, note: RecordNote) -> None:
    """Notes an xattr that the system refuses; raises any other failure."""
    if error.errno not in _CANNOT:
        raise error
    note(f"xattr {attribute.split('.', 1)[0]}.*")


def drop_inherited_acls(directory: int) -> None:
    """Removes the ACLs that a new directory inherited: everything made in it would inherit them too."""
    for attribute in _ACLS:
        try:
            os.removexattr(directory, attribute)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
