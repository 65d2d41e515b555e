"""Work on a batch of entries of one directory; the same code runs in the caller and in a worker process.

It has descriptors and names, no paths: the caller knows the place, and turns a failure into an error that names it.
"""

import errno
import os
import stat
from typing import Final, Literal, NamedTuple

from wvs.engines.errors import EngineError
from wvs.engines.kernel import OPEN_FILE, open_beneath
from wvs.engines.trees.fidelity import copy_attributes, keep_encryption
from wvs.engines.trees.filling import FILLINGS, Fill, Filling, Pulse
from wvs.engines.trees.forcing import forced
from wvs.engines.trees.specials import make_special

PULSE: Final = "pulse"
MESSAGE_BYTES: Final = 256 * 1024
"""Room for a batch of the longest names."""
BatchKind = Literal["copy", "reflink", "unlink"]
Files = list[tuple[str, int]]
"""Names of regular files, each with the inode number that the directory lists."""
Batch = tuple[Files, list[str]]
"""Regular files, and the names of all other entries except directories."""

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
RACED: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""The entry changed since it was listed."""


class BatchFailure(NamedTuple):
    """Why a batch stopped. `code` is empty for an `OSError`; `error_number` is then its errno."""

    name: str
    doing: str
    error_number: int
    code: str = ""
    detail: str = ""
    retryable: bool = False
    hint: str = ""


class BatchResult(NamedTuple):
    """The result of a batch.

    `linked`: names left to the caller because their inodes have further names. `unreadable`: names that the service
    may not read; the caller decides whether the clone goes on without them.
    """

    files: int = 0
    bytes: int = 0
    sockets: int = 0
    linked: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    failure: BatchFailure | None = None


class CloneBatch:
    """Clones entries from one directory into another."""

    def __init__(self, source: int, target: int, fill: Fill, pulse: Pulse, *, with_linked: bool = False) -> None:
        self._directories = (source, target)
        self._device = os.fstat(source).st_dev
        self._fill = fill
        self._pulse = pulse
        self._with_linked = with_linked
        self._files = self._bytes = self._sockets = 0
        self._linked: list[str] = []
        self._unreadable: list[str] = []
        self._notes: list[tuple[str, str]] = []
        self._name = self._doing = ""

    def run(self, payload: Batch) -> BatchResult:
        """Clones the entries up to the first failure."""
        files, others = payload
        failure = None
        try:
            for self._name, inode in files:
                self._clone_file(self._name, inode)
            for self._name in others:
                self._clone_other(self._name)
        except OSError as error:
            failure = BatchFailure(self._name, self._doing, error.errno or errno.EIO)
        except EngineError as error:
            failure = BatchFailure(self._name, self._doing, 0, error.code, error.detail, error.retryable, error.hint)
        names = tuple(self._linked), tuple(self._unreadable)
        return BatchResult(self._files, self._bytes, self._sockets, *names, tuple(self._notes), failure)

    def _clone_file(self, name: str, inode: int) -> None:
        self._doing = "reading"
        try:
            source = _open_file(self._directories[0], name)
        except PermissionError:
            self._unreadable.append(name)
            return
        try:
            status = os.fstat(source)
            if status.st_ino != inode or status.st_dev != self._device:
                self._check_opened(name, status)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), name)
            if status.st_nlink > 1 and not self._with_linked:
                self._linked.append(name)
                return
            self._doing = "cloning"
            self._make_file(name, source, status)
        finally:
            os.close(source)

    def _make_file(self, name: str, source: int, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode) & 0o777
        target = os.open(name, _NEW_FILE, mode, dir_fd=self._directories[1])
        try:
            flags = keep_encryption(source, target)
            if status.st_size:
                self._bytes += self._fill(source, target, status, self._pulse)
            copy_attributes(source, target, status, flags, self._note)
        finally:
            os.close(target)
        self._files += 1

    def _check_opened(self, name: str, status: os.stat_result) -> None:
        """Checks a file whose inode is not the one that its directory lists. Raises `OSError` for another file.

        It was replaced, something is mounted over it, or the filesystem lists other numbers. A second open refuses
        mount points; it is slower, and so not the way to open every file.
        """
        again = open_beneath(self._directories[0], name, OPEN_FILE)
        try:
            if not os.path.samestat(os.fstat(again), status):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        finally:
            os.close(again)

    def _clone_other(self, name: str) -> None:
        self._doing = "reading"
        try:
            status = os.stat(name, dir_fd=self._directories[0], follow_symlinks=False)
        except PermissionError:
            self._unreadable.append(name)
            return
        if stat.S_ISSOCK(status.st_mode):
            self._sockets += 1
            self._note("socket")
        elif status.st_nlink > 1 and not self._with_linked:
            self._linked.append(name)
        else:
            self._doing = "cloning"
            make_special(self._directories, name, status, self._note)
            self._files += 1

    def _note(self, what: str) -> None:
        self._notes.append((what, self._name))


def _open_file(directory: int, name: str) -> int:
    try:
        return os.open(name, OPEN_FILE | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        return os.open(name, OPEN_FILE, dir_fd=directory)


def unlink_batch(directory: int, names: list[str]) -> BatchResult:
    """Unlinks entries; it leaves those that changed meanwhile to the next pass."""
    for name in names:
        try:
            forced(os.unlink, directory, name)
        except OSError as error:
            if error.errno not in RACED:
                return BatchResult(failure=BatchFailure(name, "removing", error.errno or errno.EIO))
    return BatchResult(files=len(names))


def clone_batch(filling: Filling, source: int, target: int, payload: Batch, pulse: Pulse) -> BatchResult:
    """Clones entries from one directory into another, except those whose inodes have further names."""
    return CloneBatch(source, target, FILLINGS[filling], pulse).run(payload)


def run_batch(work: BatchKind, descriptors: list[int], payload: Batch, pulse: Pulse) -> BatchResult:
    """Runs a batch in a worker process."""
    if work == "unlink":
        return unlink_batch(descriptors[0], payload[1])
    return clone_batch(work, descriptors[0], descriptors[1], payload, pulse)
