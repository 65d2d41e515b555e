"""Copies the entries that are never opened: symlinks, FIFOs and devices."""

import errno
import os
import stat

from wvs.engines.trees.fidelity import RecordNote, note_attribute, without_set_id


def make_special(
    directories: tuple[int, int], name: str, status: os.stat_result, note: RecordNote, new_name: str = ""
) -> None:
    """Copies the symlink, FIFO or device `name` from the first directory to the second (as `new_name`).

    Only the service writes to the second directory, so its names are not swapped. Raises ENXIO if the entry became
    something else meanwhile.
    """
    source, target = directories
    made = new_name or name
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), made, dir_fd=target)
    elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
        try:
            os.mknod(made, kind | 0o600, status.st_rdev, dir_fd=target)
        except PermissionError:
            note("device")
            return
    else:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), name)
    _keep_attributes(directories, (name, made), status, note)


def _keep_attributes(
    directories: tuple[int, int], names: tuple[str, str], status: os.stat_result, note: RecordNote
) -> None:
    target, made = directories[1], names[1]
    mode = stat.S_IMODE(status.st_mode)
    try:
        os.chown(made, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    except PermissionError:
        note("owner")
        mode = without_set_id(mode)
    # An entry that is not opened has no descriptor for fsetxattr. A path through /proc resolves no link of the tree.
    paths = [f"/proc/self/fd/{directory}/{name}" for directory, name in zip(directories, names, strict=True)]
    for attribute in os.listxattr(paths[0], follow_symlinks=False):
        try:
            value = os.getxattr(paths[0], attribute, follow_symlinks=False)
            os.setxattr(paths[1], attribute, value, follow_symlinks=False)
        except OSError as error:
            note_attribute(error, attribute, note)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(made, mode, dir_fd=target)
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
