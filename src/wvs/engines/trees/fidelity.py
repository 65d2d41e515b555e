"""Sets the attributes of a new file, directory or special file to those of its original.

Every attribute that cannot be kept is noted; none is dropped silently. The order matters: chown clears set-id bits and
capabilities, an ACL changes the mode's group bits, and each of these changes the times.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

RecordNote = Callable[[str], None]
"""Records something that could not be kept, such as `owner`."""

_ACLS: Final = ("system.posix_acl_default", "system.posix_acl_access")
_CANNOT: Final = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL)


def copy_attributes(source: int, target: int, status: os.stat_result, note: RecordNote) -> None:
    """Copies owner, xattrs (with ACLs and capabilities), mode and times between two open files or directories."""
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
