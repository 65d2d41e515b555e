"""The kernel's freezers: cgroup v2 where it is mounted, else the freezer of cgroup v1."""

import asyncio
import errno
import os
import select
import time
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from wvs.agent.cgroup_placement import own_cgroup_v1, own_cgroup_v2
from wvs.agent.errors import NoFreezer
from wvs.agent.freezer import Freezer, send_all, until, until_dead, until_thawed
from wvs.agent.guardian_handle import GuardianHandle

_TOLD_WITHIN_S: Final = 0.012
"""The kernel tells of changes at most every 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV), the last one late."""

_LINKS_OF_A_LEAF: Final = 2
"""A directory of a cgroup filesystem has a link more for each one in it, which spares a look at its forty files."""


def kernel_freezer(name: str) -> Freezer:
    """A new cgroup `name` of the better hierarchy that can be used. Raises `NoFreezer`, saying why none can."""
    reasons: list[str] = []
    for kind, own in ((CgroupV2, own_cgroup_v2), (CgroupV1, own_cgroup_v1)):
        try:
            return kind(own() / name)
        except NoFreezer as reason:
            reasons.append(str(reason))
    raise NoFreezer("; ".join(reasons))


class _Cgroup(Freezer):
    """A directory of its own; the descriptor on `cgroup.procs` is opened ahead, for a child that only may write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._before: list[int] | None = None
        try:
            directory.mkdir()
        except OSError as error:
            raise NoFreezer(f"no cgroup can be made in {directory.parent} ({error.strerror})") from None
        try:
            self._try_out()
            self._procs = os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            directory.rmdir()
            raise NoFreezer(f"{self.name} cannot be used in {directory.parent} ({error.strerror})") from None

    @abstractmethod
    def _try_out(self) -> None:
        """Raises `OSError` unless this process may move itself in, which needs more than making the directory."""

    def _move_in_and_out(self) -> None:
        (self.directory / "cgroup.procs").write_text("0")
        (self.directory.parent / "cgroup.procs").write_text("0")

    def enter(self) -> None:
        os.write(self._procs, b"0")

    def pids(self) -> list[int]:
        return sorted(set(self._members()))

    def _members(self) -> Iterator[int]:
        for directory in _with_inner(self.directory):
            try:
                yield from map(int, _read(f"{directory}/cgroup.procs").split())
            except FileNotFoundError:
                pass  # a cgroup that the tree made in its own was removed meanwhile

    def close(self) -> None:
        os.close(self._procs)
        for directory in sorted(_with_inner(self.directory), reverse=True):
            _remove(directory)


class CgroupV2(_Cgroup):
    """`cgroup.freeze`, confirmed by `cgroup.events`."""

    name: ClassVar[str] = "cgroup v2"

    def _try_out(self) -> None:
        if not (self.directory / "cgroup.freeze").exists():
            raise OSError(errno.ENOSYS, "the kernel has no cgroup.freeze")
        self._move_in_and_out()
        self._switch = os.open(self.directory / "cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
        self._events = os.open(self.directory / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        self._witness = os.open(self.directory / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        self._touched = time.monotonic()

    async def freeze(self) -> None:
        self._forget_changes()
        self._turn(b"1")
        await until(lambda: self._says("frozen 1"))
        await self._until_told()
        self._before = self.pids()

    async def thaw(self) -> None:
        self._before = None
        self._turn(b"0")
        if not self._says("frozen 0"):
            await until_thawed(lambda: self._says("frozen 0"))
        self._touched = time.monotonic()

    def holds(self) -> bool:
        """Also knows of a thaw that was taken back, unless that was in the last 10 ms."""
        lasted = self._before is not None and self._says("frozen 1") and not self._is_told()
        return lasted and self.pids() == self._before

    async def kill(self) -> None:
        try:
            self._write("cgroup.kill", "1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
                raise
            # Before Linux 5.14: frozen first, or they could fork faster than they are killed. They die frozen.
            self._turn(b"1")
            send_all(self.pids())
        await until_dead(lambda: self._says("populated 0"), self.pids)

    def guard(self) -> GuardianHandle:
        return GuardianHandle(self.directory, "cgroup.freeze", "0")

    def close(self) -> None:
        for descriptor in (self._switch, self._events, self._witness):
            os.close(descriptor)
        super().close()

    async def _until_told(self) -> None:
        """Returns when the kernel has told of this freeze, too, so that it is not taken for somebody else's doing."""
        if time.monotonic() - self._touched < 3 * _TOLD_WITHIN_S:
            await asyncio.sleep(2 * _TOLD_WITHIN_S)  # it may first tell of what was before
        try:
            async with asyncio.timeout(2 * _TOLD_WITHIN_S):
                await until(self._is_told)
        except TimeoutError:
            pass  # an empty cgroup, or one that was frozen already: there is nothing to tell
        self._forget_changes()

    def _is_told(self) -> bool:
        """Whether the kernel told of a change since the witness was last read, see cgroup.events in cgroup-v2.rst."""
        poll = select.poll()
        poll.register(self._witness, select.POLLPRI)
        return bool(poll.poll(0))

    def _forget_changes(self) -> None:
        os.pread(self._witness, 4096, 0)

    def _says(self, line: str) -> bool:
        return line in os.pread(self._events, 4096, 0).decode().splitlines()

    def _turn(self, value: bytes) -> None:
        os.pwrite(self._switch, value, 0)

    def _write(self, name: str, value: str) -> None:
        # No O_CREAT: in a cgroup filesystem it says EPERM for a file that this kernel does not have.
        descriptor = os.open(self.directory / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


class CgroupV1(_Cgroup):
    """`freezer.state`. Cannot tell a thaw that was taken back; the stamps of the clone still do."""

    name: ClassVar[str] = "cgroup v1 freezer"

    def _try_out(self) -> None:
        self._state = self.directory / "freezer.state"
        self._is("THAWED")
        self._move_in_and_out()

    async def freeze(self) -> None:
        await until(self._is_frozen_when_told)
        self._before = self.pids()

    async def thaw(self) -> None:
        self._before = None
        self._state.write_text("THAWED")
        await until_thawed(lambda: self._is("THAWED"))

    def holds(self) -> bool:
        return self._before is not None and self._is("FROZEN") and self.pids() == self._before

    def guard(self) -> GuardianHandle:
        return GuardianHandle(self.directory, "freezer.state", "THAWED")

    async def kill(self) -> None:
        # Frozen first, or they could fork faster than they are killed; in v1 they die of the signal when they thaw,
        # before they run on.
        self._state.write_text("FROZEN")
        send_all(self.pids())
        self._state.write_text("THAWED")
        await until_dead(self._is_empty, self.pids)

    def _is_frozen_when_told(self) -> bool:
        """Told at each look: who was just entering a vfork is overlooked, and looked at anew only when told again.

        Told once, 14 of 800 freezes of a tree that forks all the time said FREEZING for good (Linux 6.18; runc tells
        again for the same reason, in its cgroups/fs/freezer.go).
        """
        self._state.write_text("FROZEN")
        return self._is("FROZEN")

    def _is_empty(self) -> bool:
        left = self.pids()
        send_all(left)
        return not left

    def _is(self, state: str) -> bool:
        return self._state.read_text().strip() == state


def _read(path: str) -> bytes:
    """The whole file, with few system calls: agents of one host look all at the same moment."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _with_inner(directory: Path) -> Iterator[Path]:
    """A cgroup and those that its processes made in it."""
    yield directory
    try:
        if directory.stat().st_nlink == _LINKS_OF_A_LEAF:
            return
        inner = [Path(entry) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for path in inner:
        yield from _with_inner(path)


def _remove(directory: Path) -> None:
    """The kernel may call a cgroup busy for a moment after its last process is gone."""
    deadline = time.monotonic() + 1
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
