"""Giving a new file, directory or special file the attributes of the one it was cloned from.

What cannot be kept is noted, never dropped in silence. The order matters: chown clears set-id bits and capabilities, an
ACL changes the mode's group bits, and everything before it changes times.
"""

import errno
import os
import stat
import threading
from typing import Final

from wvs.engines.base import Note
from wvs.engines.descent import Place

_ACLS: Final = ("system.posix_acl_default", "system.posix_acl_access")
_CANNOT: Final = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL)


class Notes:
    """Collects what could not be kept. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, place: Place, name: str) -> None:
        """One more `what`; the first place of each kind is remembered."""
        with self._lock:
            count, example = self._found.get(what) or (0, place.shown(name))
            self._found[what] = (count + 1, example)

    def all(self) -> tuple[Note, ...]:
        """Every note, by name."""
        return tuple(Note(what, *self._found[what]) for what in sorted(self._found))


def attributes_of_open(
    source: int, target: int, status: os.stat_result, made_as: tuple[int, int], notes: Notes, place: Place, name: str
) -> None:
    """Owner, xattrs (ACLs and capabilities are among them), mode and times for two open files or directories.

    `made_as`: the owner that the target was made with; spares a system call for each file.
    """
    mode = stat.S_IMODE(status.st_mode)
    if made_as != (status.st_uid, status.st_gid):
        mode = _keep_owner(target, status, mode, notes, place, name)
    for attribute in os.listxattr(source):
        try:
            os.setxattr(target, attribute, os.getxattr(source, attribute))
        except OSError as error:
            note_attribute(error, attribute, notes, place, name)
    os.chmod(target, mode)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _keep_owner(target: int, status: os.stat_result, mode: int, notes: Notes, place: Place, name: str) -> int:
    try:
        os.chown(target, status.st_uid, status.st_gid)
    except PermissionError:
        notes.add("owner", place, name)
        # A set-id bit beside another owner would hand out that owner's rights.
        return mode & ~(stat.S_ISUID | stat.S_ISGID)
    return mode


def note_attribute(error: OSError, attribute: str, notes: Notes, place: Place, name: str) -> None:
    """Notes an xattr that the system refuses; any other failure is raised."""
    if error.errno not in _CANNOT:
        raise error
    notes.add(f"xattr {attribute.split('.', 1)[0]}.*", place, name)


def drop_inherited_acls(directory: int) -> None:
    """Removes ACLs that a new directory inherited: everything made below would inherit them again."""
    for attribute in _ACLS:
        try:
            os.removexattr(directory, attribute)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
