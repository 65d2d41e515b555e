"""The kernel's freezers: cgroup v2 where it can be used, else the freezer of cgroup v1."""

import asyncio
import errno
import os
import select
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Final

from wvs.agent.cgroup_placement import own_cgroup_v1, own_cgroup_v2
from wvs.agent.errors import NoFreezer
from wvs.agent.freezer import Freezer, poll_until, signal_all, wait_until_dead, wait_until_thawed
from wvs.agent.guardian_handle import GuardianHandle
from wvs.domain.values import FrozenProcesses

_NOTIFY_INTERVAL_S: Final = 0.012
"""The kernel notifies at most every 10 ms (CGROUP_FILE_NOTIFY_MIN_INTV); it delays the last notification."""

_LEAF_LINKS: Final = 2
"""A cgroup directory has one more link for each child. Without children, its forty files need not be listed."""


def freezer_of(directories: Iterable[Path], what: str) -> "CgroupV2Freezer | CgroupV1Freezer":
    """The freezer of a cgroup that others created: the first of its `directories`, one a hierarchy, that can be used.

    Raises `NoFreezer` with the reason for each directory.
    """
    reasons: list[str] = []
    for directory in directories:
        kind = CgroupV1Freezer if (directory / "freezer.state").exists() else CgroupV2Freezer
        try:
            return kind(directory, is_ours=False)
        except NoFreezer as reason:
            reasons.append(str(reason))
    raise NoFreezer(f"{what}: {'; '.join(reasons) or 'its cgroup is in no hierarchy that has a freezer'}")


def kernel_freezer(name: str) -> Freezer:
    """Creates cgroup `name` in the v2 hierarchy, else in v1. Raises `NoFreezer` with the reason for each hierarchy."""
    reasons: list[str] = []
    for kind, own in ((CgroupV2Freezer, own_cgroup_v2), (CgroupV1Freezer, own_cgroup_v1)):
        try:
            return kind(own() / name)
        except NoFreezer as reason:
            reasons.append(str(reason))
    raise NoFreezer("; ".join(reasons))


class _CgroupFreezer(Freezer):
    """One cgroup directory. `cgroup.procs` is opened in advance: a child between fork and exec only writes to it."""

    def __init__(self, directory: Path, *, is_ours: bool = True) -> None:
        """Creates the cgroup if it is `is_ours`; else it exists, nothing enters it, and nothing but its freeze changes.

        Raises `NoFreezer` with the reason.
        """
        self.directory = directory
        self._is_ours = is_ours
        self._frozen_pids: list[int] | None = None
        self._procs = -1
        if is_ours:
            self._create()
            return
        try:
            self._open()
        except OSError as error:
            what = f"no right to write to {error.filename}" if error.filename else f"cannot freeze {directory}"
            raise NoFreezer(f"{what} ({error.strerror})") from None
        if os.getpid() in self._members():
            self.close()
            raise NoFreezer(f"this process is itself in {directory} and would freeze with it; start it outside")

    def _create(self) -> None:
        directory = self.directory
        try:
            directory.mkdir()
        except OSError as error:
            raise NoFreezer(f"cannot create a cgroup in {directory.parent} ({error.strerror})") from None
        try:
            self._open()
            self._enter_and_leave()
            self._procs = os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            directory.rmdir()
            raise NoFreezer(f"{self.name} cannot be used in {directory.parent} ({error.strerror})") from None

    @abstractmethod
    def _open(self) -> None:
        """Opens the files of the freezer. Raises `OSError` if this process may not freeze the cgroup."""

    @abstractmethod
    def is_held(self) -> bool:
        """Whether the kernel has the cgroup frozen or is about to, by this process or by another, as by a pause."""

    def _enter_and_leave(self) -> None:
        # To enter the cgroup needs more rights than to create it.
        (self.directory / "cgroup.procs").write_text("0")
        (self.directory.parent / "cgroup.procs").write_text("0")

    def enter(self) -> None:
        os.write(self._procs, b"0")

    def pids(self) -> list[int]:
        return sorted(set(self._members()))

    def frozen(self) -> FrozenProcesses:
        return FrozenProcesses("cgroup", self.directory.name, len(self._frozen_pids or ()))

    def _members(self) -> Iterator[int]:
        for directory in _with_descendants(self.directory):
            try:
                yield from map(int, _read(f"{directory}/cgroup.procs").split())
            except FileNotFoundError:
                pass  # the processes removed a child cgroup meanwhile

    def close(self) -> None:
        if not self._is_ours:
            return
        os.close(self._procs)
        for directory in sorted(_with_descendants(self.directory), reverse=True):
            _remove(directory)


class CgroupV2Freezer(_CgroupFreezer):
    """`cgroup.freeze`, confirmed by `cgroup.events`."""

    name: ClassVar[str] = "cgroup v2"

    def _open(self) -> None:
        if not (self.directory / "cgroup.freeze").exists():
            raise OSError(errno.ENOSYS, "it has no cgroup.freeze: the root cgroup, no cgroup v2, or Linux before 5.2")
        self._freeze_file = os.open(self.directory / "cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
        self._events_file = os.open(self.directory / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        self._notifications = os.open(self.directory / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        self._thawed_at = time.monotonic()

    async def freeze(self) -> None:
        self._discard_notifications()
        self._write_freeze(b"1")
        await poll_until(lambda: self._reports("frozen 1"))
        await self._until_notified()
        self._frozen_pids = self.pids()

    async def thaw(self) -> None:
        self._frozen_pids = None
        self._write_freeze(b"0")
        if not self._reports("frozen 0"):
            await wait_until_thawed(lambda: self._reports("frozen 0"))
        self._thawed_at = time.monotonic()

    def still_frozen(self) -> bool:
        """Also notices a thaw followed by a freeze, unless that happened in the last 10 ms."""
        is_unbroken = self._frozen_pids is not None and self._reports("frozen 1") and not self._is_notified()
        return is_unbroken and self.pids() == self._frozen_pids

    async def kill(self) -> None:
        try:
            self._write("cgroup.kill", "1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
                raise
            # Before Linux 5.14. Frozen first, or the tree could fork faster than it is killed. Frozen processes die.
            self._write_freeze(b"1")
            signal_all(self.pids())
        await wait_until_dead(lambda: self._reports("populated 0"), self.pids)

    def start_guardian(self) -> GuardianHandle:
        return GuardianHandle(self.directory, "cgroup.freeze", "0")

    def is_held(self) -> bool:
        with open(self.directory / "cgroup.freeze", "rb") as file:  # noqa: PTH123 - self._freeze_file is write-only
            return file.read().strip() == b"1"

    def close(self) -> None:
        for descriptor in (self._freeze_file, self._events_file, self._notifications):
            os.close(descriptor)
        super().close()

    async def _until_notified(self) -> None:
        """Waits for the notification of this freeze, which would later look like a change by another process."""
        if time.monotonic() - self._thawed_at < 3 * _NOTIFY_INTERVAL_S:
            await asyncio.sleep(2 * _NOTIFY_INTERVAL_S)  # the kernel may still owe the notification of the thaw before
        try:
            async with asyncio.timeout(2 * _NOTIFY_INTERVAL_S):
                await poll_until(self._is_notified)
        except TimeoutError:
            pass  # the cgroup is empty, or was frozen before: the kernel sends nothing
        self._discard_notifications()

    def _is_notified(self) -> bool:
        """Whether the kernel notified of a change since the last read, see cgroup.events in cgroup-v2.rst."""
        poll = select.poll()
        poll.register(self._notifications, select.POLLPRI)
        return bool(poll.poll(0))

    def _discard_notifications(self) -> None:
        os.pread(self._notifications, 4096, 0)

    def _reports(self, line: str) -> bool:
        return line in os.pread(self._events_file, 4096, 0).decode().splitlines()

    def _write_freeze(self, value: bytes) -> None:
        os.pwrite(self._freeze_file, value, 0)

    def _write(self, name: str, value: str) -> None:
        # No O_CREAT: with it a cgroup filesystem fails with EPERM for a file that this kernel does not have.
        descriptor = os.open(self.directory / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


class CgroupV1Freezer(_CgroupFreezer):
    """`freezer.state`. It cannot notice a thaw followed by a freeze; the stamps of the clone can."""

    name: ClassVar[str] = "cgroup v1 freezer"

    def _open(self) -> None:
        self._state = self.directory / "freezer.state"
        os.close(os.open(self._state, os.O_RDWR | os.O_CLOEXEC))

    def is_held(self) -> bool:
        return not self._has_state("THAWED")

    async def freeze(self) -> None:
        await poll_until(self._write_frozen_and_check)
        self._frozen_pids = self.pids()

    async def thaw(self) -> None:
        self._frozen_pids = None
        self._state.write_text("THAWED")
        await wait_until_thawed(lambda: self._has_state("THAWED"))

    def still_frozen(self) -> bool:
        return self._frozen_pids is not None and self._has_state("FROZEN") and self.pids() == self._frozen_pids

    def start_guardian(self) -> GuardianHandle:
        return GuardianHandle(self.directory, "freezer.state", "THAWED")

    async def kill(self) -> None:
        # The tree is frozen first, or it could fork faster than it is killed. In v1 the signal ends the processes when
        # they thaw, before they run.
        self._state.write_text("FROZEN")
        signal_all(self.pids())
        self._state.write_text("THAWED")
        await wait_until_dead(self._is_empty, self.pids)

    def _write_frozen_and_check(self) -> bool:
        """Writes FROZEN again before each check. The kernel overlooks a process that is entering a vfork until then.

        Written once, 14 of 800 freezes of a tree that always forks stayed at FREEZING (Linux 6.18). runc repeats the
        write for the same reason, in its cgroups/fs/freezer.go.
        """
        self._state.write_text("FROZEN")
        return self._has_state("FROZEN")

    def _is_empty(self) -> bool:
        left = self.pids()
        signal_all(left)
        return not left

    def _has_state(self, state: str) -> bool:
        return self._state.read_text().strip() == state


def _read(path: str) -> bytes:
    """Reads the whole file with few system calls: all agents of a host read at the same moment."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _with_descendants(directory: Path) -> Iterator[Path]:
    """A cgroup and the descendants that its processes created."""
    yield directory
    try:
        if directory.stat().st_nlink == _LEAF_LINKS:
            return
        children = [Path(entry) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for path in children:
        yield from _with_descendants(path)


def _remove(directory: Path) -> None:
    """Removes a cgroup. The kernel may report EBUSY for a moment after its last process has ended."""
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
