"""Flushing what frozen processes have written, on their own host (design §7, step 3)."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from wvs.agent.errors import FreezeRefused
from wvs.engines.kernel import sync_filesystem
from wvs.engines.mounts import mount_of

_WRITING: Final = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Flusher:
    """Flushes one live tree, from the moment that an agent begins to work in it.

    One descriptor for that whole time: Linux reports a failed write-back only to descriptors that were open when it
    happened (syncfs(2)). And one failure is final: the kernel reports it once and marks the pages clean, so that a
    second fsync would say that all is well.
    """

    def __init__(self, root: str) -> None:
        """Raises `FreezeRefused` if the tree's root cannot be opened for reading."""
        self._root = root
        self._failure: str | None = None
        try:
            self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise FreezeRefused(f"{root} cannot be opened, so nothing in it can be flushed: {error.strerror}") from None
        self._keeps_its_own_buffers: bool | None = None

    def flush(self, writers: Callable[[], Iterable[int]]) -> str:
        """Writes out everything that was written to the tree; `writers` tells the frozen processes. Answers `ok`.

        Raises `FreezeRefused` if anything failed, now or in an earlier flush.
        """
        if self._failure is None:
            try:
                self._flush(writers)
            except OSError as error:
                self._failure = f"{error.strerror or error} ({error.filename or self._root})"
        if self._failure is not None:
            raise FreezeRefused(f"the flush failed: {self._failure}; what was written may be lost")
        return "ok"

    def close(self) -> None:
        """Lets go of the tree."""
        os.close(self._descriptor)

    def _flush(self, writers: Callable[[], Iterable[int]]) -> None:
        if self._keeps_its_own_buffers is None:
            self._keeps_its_own_buffers = mount_of(self._descriptor).has_own_buffers
        if self._keeps_its_own_buffers:
            device = os.fstat(self._descriptor).st_dev
            for pid in writers():
                for path in _written_by(pid, device):
                    _fsync(path)
        sync_filesystem(self._descriptor)


def _written_by(pid: int, device: int) -> Iterator[str]:
    """Every file on `device` that the process has open for writing or mapped shared, by a path that opens it.

    `/proc/PID/fd/N` opens the very file, through the mount that the process uses, whatever its name is now.
    """
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except FileNotFoundError:
        return
    for number in descriptors:
        path = f"/proc/{pid}/fd/{number}"
        if _is_open_for_writing(pid, number) and _is_file_on(path, device):
            yield path
    for path in sorted(set(_mapped_shared(pid))):
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
        found = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False  # unlinked, and its directory too
    return stat.S_ISREG(found.st_mode) and found.st_dev == device


def _mapped_shared(pid: int) -> Iterator[str]:
    """Paths of files that the process maps shared, see proc_pid_maps(5); one that was unlinked has none."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:  # noqa: PTH123
        for line in lines:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and fields[1][3] == "s" and fields[5].startswith("/"):
                yield fields[5].replace("\\012", "\n")


def _fsync(path: str) -> None:
    """The descriptor is a writing one: JuiceFS flushes nothing for a reader's fsync."""
    try:
        descriptor = os.open(path, _WRITING)
    except FileNotFoundError:
        return  # unlinked meanwhile: no name of the tree leads to it
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
