"""Which processes of this host hold a tree: work in it, have a file of it open for writing, or have it mounted.

Everything comes from the text of /proc. Paths are translated by the mount table of the process's own namespace, so that
a tree is found under whatever path it is mounted, and no other filesystem is touched: a stat of the working directory
of an unrelated process could hang for ever, if its server of NFS is gone.

A look takes about 60 µs for each process, and 5 µs more for each of its open files. What costs more is read only for
processes that hold the tree, or may.
"""

import errno
import functools
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from wvs.engines.mappings import mapped_shared
from wvs.engines.mounts import Mount, mounts

MOUNTED: Final = "has it mounted at"
"""The beginning of how a process holds a tree through a mount of its own."""

_MAX_COMMAND: Final = 120
_MAX_HOW: Final = 5
_PF_KTHREAD: Final = 0x00200000
_KTHREADD: Final = 2
_INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel's proc_ns.h."""
_GONE: Final = (FileNotFoundError, ProcessLookupError)


class Holder(Struct, frozen=True):
    """A process that holds the tree.

    `ancestors`: its parent, the parent's parent and so on. `inner_pid`: its id in its own PID namespace.
    """

    pid: int
    command: str
    how: tuple[str, ...]
    cgroups: tuple[str, ...]
    ancestors: tuple[int, ...]
    inner_pid: int


class Look(Struct, frozen=True):
    """What one look found. `unseen` says which processes it could not examine, and why; empty if none."""

    found: int
    holders: tuple[Holder, ...]
    unseen: str


@functools.cache
def process_view() -> str:
    """Names the processes that this one can see: the boot of the host, and the PID namespace."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"


def sees_all_users() -> bool:
    """Whether this process may examine the processes of other users."""
    return os.geteuid() == 0


def holders_of(root: str, most: int, spared: Iterable[int] = ()) -> Look:
    """Looks at every process of this host whether it holds the tree at `root`, a real path.

    It counts all and describes `most`. The processes `spared` are left out.
    """
    return _Looker(root).look(most, set(spared))


def hidden_below(root: str, process: int | str = "self") -> list[tuple[str, str]]:
    """Other filesystems mounted in the tree at `root`, as the process sees it: each place below the root, and its type.

    A bind mount hides what is below it, too.
    """
    table = mounts(process)
    found: dict[str, str] = {}
    for window in _windows(table, _tree_in_filesystem(root)):
        for mount in table:
            if mount.id != window.mount and mount.point.startswith(f"{window.path}/"):
                found[mount.point.removeprefix(f"{window.path}/")] = mount.filesystem
    return sorted(found.items())


class _Place(Struct, frozen=True):
    """A directory as the kernel knows it: a device, and a path on that."""

    device: str
    path: str


class _Window(Struct, frozen=True):
    """A path of a mount namespace below which all or a part of the tree appears, and the mount that shows it."""

    path: str
    mount: int


class _Namespace(Struct, frozen=True):
    windows: tuple[_Window, ...]
    table: tuple[Mount, ...]
    shows: str
    """How the tree is mounted in this namespace alone; empty if it is not."""

    def place_of(self, path: str) -> str | None:
        """The path below the tree's window; None for a path outside the tree, as of a socket."""
        for window in self.windows if path.startswith("/") else ():
            if path == window.path or path.startswith(f"{window.path}/"):
                holding = _mount_at(self.table, path)
                if holding is not None and holding.id == window.mount:
                    return path[len(window.path) + 1 :] or "."
        return None


class _Looker:
    def __init__(self, root: str) -> None:
        self._tree = _tree_in_filesystem(root)
        self._own_table = mounts()
        self._own_id = os.readlink("/proc/self/ns/mnt")
        self._own_pids = os.readlink("/proc/self/ns/pid")
        self._own = _Namespace(tuple(_windows(self._own_table, self._tree)), self._own_table, "")
        self._known: dict[tuple[str, str], _Namespace] = {}
        self._parents: dict[int, int] = {}
        self._unreadable = 0
        self._too_deep: set[int] = set()

    def look(self, most: int, spared: set[int]) -> Look:
        found: list[Holder] = []
        count = 0
        of_kernel = _threads_of_kernel()
        for entry in os.listdir("/proc"):
            if not entry.isdecimal() or entry in of_kernel or int(entry) in spared:
                continue
            how = self._how(int(entry))
            if how:
                count += 1
                if len(found) < most and (holder := self._describe(int(entry), how)) is not None:
                    found.append(holder)
        return Look(count, tuple(found), self._unseen())

    def _how(self, pid: int) -> tuple[str, ...]:
        how: list[str] = []
        try:
            thread, namespace = self._seat(pid)
            if namespace.shows:
                how.append(namespace.shows)
            if namespace.windows:
                how += self._directories(thread, namespace)
                how += self._files(thread, namespace)
        except _GONE:
            pass  # it has ended meanwhile
        except PermissionError:
            self._unreadable += _runs_programs(pid)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self._too_deep.add(pid)  # its root directory
        return tuple(how[:_MAX_HOW])

    def _seat(self, pid: int) -> tuple[str, _Namespace]:
        """The directory below /proc that shows what the process holds, and the process's mount namespace.

        Of a process whose first thread has ended, only the directories of its other threads show anything.
        """
        try:
            return str(pid), self._namespace(str(pid))
        except FileNotFoundError:
            others = [f"{pid}/task/{thread}" for thread in os.listdir(f"/proc/{pid}/task") if thread != str(pid)]
            if not others:
                raise
            return others[0], self._namespace(others[0])

    def _directories(self, thread: str, namespace: _Namespace) -> Iterator[str]:
        for link, name in (("cwd", "working directory"), ("root", "root directory")):
            place = self._place(thread, link, namespace)
            if place is not None:
                yield name if place == "." else f"{name} {place}"

    def _files(self, thread: str, namespace: _Namespace) -> Iterator[str]:
        seen: set[str] = set()
        for number in os.listdir(f"/proc/{thread}/fd"):
            try:
                place = self._place(thread, f"fd/{number}", namespace)
                if place is not None and place not in seen and _is_open_for_writing(thread, number):
                    seen.add(place)
                    yield f"has {place} open for writing"
            except _GONE:
                continue  # closed meanwhile
        for path in mapped_shared(thread):
            place = namespace.place_of(path)
            if place is not None and place not in seen:
                seen.add(place)
                yield f"has {place} mapped shared"

    def _place(self, thread: str, link: str, namespace: _Namespace) -> str | None:
        try:
            return namespace.place_of(os.readlink(f"/proc/{thread}/{link}"))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self._too_deep.add(int(thread.partition("/")[0]))
            return None

    def _namespace(self, thread: str) -> _Namespace:
        identity = os.readlink(f"/proc/{thread}/ns/mnt")
        if identity == self._own_id:
            return self._own
        root = os.readlink(f"/proc/{thread}/root")
        known = self._known.get((identity, root))
        if known is None:
            table = _table_of(thread)
            windows = tuple(_windows(table, self._tree))
            known = self._known[identity, root] = _Namespace(windows, table, self._made_there(table, windows))
        return known

    def _made_there(self, table: tuple[Mount, ...], windows: tuple[_Window, ...]) -> str:
        """Where the tree is mounted in a namespace other than this one. A mount that a new namespace merely inherited,
        as every service of systemd does, does not count: its filesystem, its root there and its path are those of here.
        """
        here = {(mount.device, mount.root, mount.point) for mount in self._own_table}
        inherits_root = any(mount.point == "/" and (mount.device, mount.root, mount.point) in here for mount in table)
        by_id = {mount.id: mount for mount in table}
        for window in windows:
            mount = by_id[window.mount]
            if not (inherits_root and (mount.device, mount.root, mount.point) in here):
                return f"{MOUNTED} {window.path}"
        return ""

    def _describe(self, pid: int, how: tuple[str, ...]) -> Holder | None:
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
                cgroups = tuple(sorted({line.rstrip("\n").split(":", 2)[2] for line in lines}))
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read(4096).rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
            inner = pid if os.readlink(f"/proc/{pid}/ns/pid") == self._own_pids else _inner_pid(pid)
            named = line or _name(pid)
        except _GONE:
            return None
        command = named if named.isprintable() else "".join(c if c.isprintable() else "?" for c in named)
        shown = command if len(command) <= _MAX_COMMAND else f"{command[: _MAX_COMMAND - 1]}…"
        return Holder(pid, shown, tuple(map(_printable, how)), cgroups, tuple(self._ancestors(pid)), inner)

    def _ancestors(self, pid: int) -> Iterator[int]:
        seen = {pid}
        while (pid := self._parent(pid)) and pid not in seen and len(seen) < 100:
            seen.add(pid)
            yield pid

    def _parent(self, pid: int) -> int:
        if pid not in self._parents:
            try:
                self._parents[pid] = int(_stat(pid)[1])
            except (*_GONE, PermissionError):
                self._parents[pid] = 0
        return self._parents[pid]

    def _unseen(self) -> str:
        reasons: list[str] = []
        if not sees_all_users():
            if self._unreadable:
                reasons.append(f"no right to examine {_processes(self._unreadable)} of other users")
            proc = _mount_at(self._own_table, "/proc")
            if proc is not None and "hidepid=" in proc.super_options and "hidepid=off" not in proc.super_options:
                reasons.append("/proc hides the processes of other users (hidepid)")
        elif self._unreadable:
            reasons.append(f"the kernel refused to show {_processes(self._unreadable)}")
        if self._too_deep:
            reasons.append(f"{_processes(len(self._too_deep))} in directories so deep that the kernel shows no path")
        if self._own_pids != _INITIAL_PID_NAMESPACE:
            reasons.append(f"{socket.gethostname()} is a container: no process outside it can be seen")
        return "; ".join(reasons)


def _processes(number: int) -> str:
    return f"{number} process" if number == 1 else f"{number} processes"


def _table_of(thread: str) -> tuple[Mount, ...]:
    try:
        return mounts(thread)
    except OSError as error:
        if error.errno == errno.EINVAL:  # it has left its namespace, as every process does that ends
            raise ProcessLookupError(errno.ESRCH, "the process has ended") from error
        raise


def _tree_in_filesystem(root: str) -> _Place:
    mount = _mount_at(mounts(), root)
    if mount is None:
        raise FileNotFoundError(root)
    below = root if mount.point == "/" else root.removeprefix(mount.point)
    return _Place(mount.device, f"{mount.root.rstrip('/')}{below}".rstrip("/") or "/")


def _mount_at(table: tuple[Mount, ...], path: str) -> Mount | None:
    """The mount that a path leads to: the one with the longest point; of these the newest, which hides the others."""
    best: Mount | None = None
    for mount in table:
        top = mount.point
        covers = top in ("/", path) or path.startswith(f"{top}/")
        if covers and (best is None or len(top) >= len(best.point)):
            best = mount
    return best


def _windows(table: tuple[Mount, ...], tree: _Place) -> Iterator[_Window]:
    for mount in table:
        if mount.device != tree.device:
            continue
        above = mount.root.rstrip("/")
        if tree.path == mount.root or mount.root.startswith(f"{tree.path}/"):
            yield _Window(mount.point, mount.id)
        elif tree.path.startswith(f"{above}/"):
            path = f"{mount.point.rstrip('/')}{tree.path[len(above) :]}"
            if (holding := _mount_at(table, path)) is not None and holding.id == mount.id:
                yield _Window(path, mount.id)


def _is_open_for_writing(thread: str, number: str) -> bool:
    with open(f"/proc/{thread}/fdinfo/{number}", encoding="ascii", errors="replace") as lines:
        flags = next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), 0)
    return flags & os.O_ACCMODE != os.O_RDONLY


_known_threads_of_kernel: Final[set[str]] = set()


def _threads_of_kernel() -> set[str]:
    """The threads of the kernel, as far as this process may know: children of kthreadd.

    The kernel starts programs as its children, too, such as the one that takes core dumps. So each child is examined,
    once, and forgotten when it ends.
    """
    children: set[str] = set()
    try:
        if _is_of_kernel(str(_KTHREADD)):
            with open(f"/proc/{_KTHREADD}/task/{_KTHREADD}/children", encoding="utf-8") as file:
                children.update(file.read().split())
    except FileNotFoundError:
        pass  # a kernel without CONFIG_PROC_CHILDREN
    known = _known_threads_of_kernel
    known &= children
    known |= set(filter(_is_of_kernel, children - known))
    return known


def _is_of_kernel(pid: str) -> bool:
    try:
        return bool(int(_stat(int(pid))[6]) & _PF_KTHREAD)
    except (*_GONE, PermissionError):
        return False


def _inner_pid(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
        return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), pid)


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")


def _runs_programs(pid: int) -> bool:
    """Whether it is a process that may hold anything: it has not ended, and is no thread of the kernel."""
    try:
        fields = _stat(pid)
    except _GONE:
        return False
    except PermissionError:
        return True
    return not int(fields[6]) & _PF_KTHREAD and fields[0] not in (b"Z", b"X")


def _stat(pid: int) -> list[bytes]:
    """The fields of proc_pid_stat(5) behind the name: state, parent and so on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode().replace("\0", r"\x00")[:300]
