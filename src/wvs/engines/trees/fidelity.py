"""Giving a new file, directory or special file the attributes of the one it was cloned from.

What cannot be kept is noted, never dropped in silence. The order matters: chown clears set-id bits and capabilities, an
ACL changes the mode's group bits, and everything before it changes times.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

Note = Callable[[str], None]
"""Told of something that could not be kept, such as `owner`."""

_ACLS: Final = ("system.posix_acl_default", "system.posix_acl_access")
_CANNOT: Final = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL)


def attributes_of_open(source: int, target: int, status: os.stat_result, note: Note) -> None:
    """Owner, xattrs (ACLs and capabilities are among them), mode and times for two open files or directories."""
    mode = stat.S_IMODE(status.st_mode)
    # One look at the new file is cheaper than changing what is right already: each change is a transaction.
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
    """`mode` for a file whose owner was not kept: a set-id bit would hand out another owner's rights."""
    return mode & ~(stat.S_ISUID | stat.S_ISGID)


def note_attribute(error: OSError, attribute: str, note: Note) -> None:
    """Notes an xattr that the system refuses; any other failure is raised."""
    if error.errno not in _CANNOT:
        raise error
    note(f"xattr {attribute.split('.', 1)[0]}.*")


def drop_inherited_acls(directory: int) -> None:
    """Removes ACLs that a new directory inherited: everything made below would inherit them again."""
    for attribute in _ACLS:
        try:
            os.removexattr(directory, attribute)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
