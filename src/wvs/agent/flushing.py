"""Flushing the files that frozen processes have written, on their own host (design §7, step 3)."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from wvs.agent.errors import CannotFreeze
from wvs.engines.kernel import sync_filesystem
from wvs.engines.mounts import mount_of

_OPEN_FLAGS: Final = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Flusher:
    """Flushes one live tree, from the moment at which an agent begins to work in it.

    It keeps one descriptor open for that whole time: Linux reports a failed write-back only to descriptors that were
    open when it happened (syncfs(2)). The first failure is final: the kernel reports it once and marks the pages clean,
    so that a second fsync would report success.
    """

    def __init__(self, root: str) -> None:
        """Raises `CannotFreeze` if the tree's root cannot be opened for reading."""
        self._root = root
        self._failure: str | None = None
        try:
            self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CannotFreeze(f"{root} cannot be opened, so it cannot be flushed: {error.strerror}") from None
        self._has_own_buffers: bool | None = None

    def flush(self, writers: Callable[[], Iterable[int]]) -> str:
        """Writes to disk what the frozen processes wrote to the tree; `writers` returns their ids. Returns `ok`.

        Raises `CannotFreeze` if anything failed, now or in an earlier flush.
        """
        if self._failure is None:
            try:
                self._flush(writers)
            except OSError as error:
                self._failure = f"{error.strerror or error} ({error.filename or self._root})"
        if self._failure is not None:
            raise CannotFreeze(f"the flush failed: {self._failure}; data that the agent wrote may be lost")
        return "ok"

    def close(self) -> None:
        """Closes the descriptor of the tree."""
        os.close(self._descriptor)

    def _flush(self, writers: Callable[[], Iterable[int]]) -> None:
        if self._has_own_buffers is None:
            self._has_own_buffers = mount_of(self._descriptor).has_own_buffers
        if self._has_own_buffers:
            device = os.fstat(self._descriptor).st_dev
            for pid in writers():
                for path in _files_written_by(pid, device):
                    _fsync(path)
        sync_filesystem(self._descriptor)


def _files_written_by(pid: int, device: int) -> Iterator[str]:
    """Paths that open every file on `device` that the process has open for writing or mapped shared.

    `/proc/PID/fd/N` opens the same file, through the mount that the process uses, even if it was renamed.
    """
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except FileNotFoundError:
        return
    for number in descriptors:
        path = f"/proc/{pid}/fd/{number}"
        if _is_open_for_writing(pid, number) and _is_file_on(path, device):
            yield path
    for path in sorted(set(_files_mapped_shared_by(pid))):
        if _is_file_on(path, device):
            yield path


def _is_open_for_writing(pid: int, number: str) -> bool:
    try:
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as lines:  # noqa: PTH123
            flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    except FileNotFoundError:
        return False
    return flags & os.O_ACCMODE != os.O_RDONLY


def _is_file_on(path: str, device: int) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False  # the file was unlinked, or its directory
    return stat.S_ISREG(status.st_mode) and status.st_dev == device


def _files_mapped_shared_by(pid: int) -> Iterator[str]:
    """Paths of the files that the process maps shared, see proc_pid_maps(5). An unlinked file has no path.

    For a process in another mount namespace, as in a container, the kernel shows the path from the root over there.
    """
    is_elsewhere = os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")  # noqa: PTH115
    prefix = f"/proc/{pid}/root" if is_elsewhere else ""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:  # noqa: PTH123
        for line in lines:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and fields[1][3] == "s" and fields[5].startswith("/"):
                yield prefix + fields[5].replace("\\012", "\n")


def _fsync(path: str) -> None:
    """Flushes one file through a descriptor open for writing: on a read-only one JuiceFS flushes nothing."""
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError:
        return  # unlinked meanwhile: the tree no longer contains it
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
