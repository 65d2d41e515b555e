"""Trees whose owner works against us: never an access outside the tree, never a hang, always a clear error."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.integration.engines.conftest import Bench, attempt, on
from tests.integration.engines.filesystems import Namespace
from tests.integration.engines.trees import account, build_everything
from tests.skips import need_root

from wvs.domain.errors import ErrorCode
from wvs.engines import kernel
from wvs.engines.base import Cancel

_SECRET = b"a secret of somebody else"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)

_WALKERS = ("copy", "reflink")


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Repeats `act` in a thread for as long as the block runs; an exception fails the test."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def repeat() -> None:
        try:
            while not ended.is_set():
                act()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failures, failures


def exchange(one: Path, other: Path) -> None:
    """Swaps two names by one system call; either may be gone already."""
    _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    (place / "deep").mkdir(parents=True)
    for name in ("secret", "deep/secret"):
        (place / name).write_bytes(_SECRET)
    return place


def secrets_in(tree: Path) -> list[str]:
    found: list[str] = []
    for directory, _, files in os.walk(tree):
        for name in files:
            path = Path(directory) / name
            if not path.is_symlink() and path.is_file() and path.read_bytes() == _SECRET:
                found.append(str(path))
    return found


def test_directories_swapped_for_links_while_cloning_lead_nowhere(bench: Bench, outside: Path) -> None:
    source = bench.live()
    root = bench.path(source)
    for number in range(5):
        (root / f"dir{number}" / "deep").mkdir(parents=True)
        (root / f"dir{number}" / "deep" / "secret").write_bytes(b"mine")
        (root / f"dir{number}" / "secret").write_bytes(b"mine")
        (root / f"link{number}").symlink_to(outside)

    def swap() -> None:
        for number in range(5):
            exchange(root / f"dir{number}", root / f"link{number}")

    with meanwhile(swap):
        until = time.monotonic() + 1
        while time.monotonic() < until:
            target = bench.intend()
            error = attempt(partial(bench.volume.clone, bench.workspace, source, target))
            assert error is None or error.code in (ErrorCode.TORN_CLONE, ErrorCode.CLONE_FAILED)
            if bench.has_tree(target):
                assert secrets_in(bench.path(target)) == []
            bench.purge(target)


def test_files_swapped_for_links_while_cloning_lead_nowhere(bench: Bench, outside: Path) -> None:
    source = bench.live()
    root = bench.path(source)
    (root / "file").write_bytes(b"mine")
    (root / "link").symlink_to(outside / "secret")

    with meanwhile(lambda: exchange(root / "file", root / "link")):
        until = time.monotonic() + 1
        while time.monotonic() < until:
            target = bench.intend()
            error = attempt(partial(bench.volume.clone, bench.workspace, source, target))
            assert error is None or error.code in (ErrorCode.TORN_CLONE, ErrorCode.CLONE_FAILED)
            if bench.has_tree(target):
                assert secrets_in(bench.path(target)) == []


def test_directories_swapped_for_links_while_removing_lead_nowhere(bench: Bench, outside: Path) -> None:
    before = account(outside)
    for _ in range(5):
        name = bench.live()
        for number in range(20):
            (bench.path(name) / f"dir{number}" / "deep").mkdir(parents=True)
            (bench.path(name) / f"dir{number}" / "deep" / "secret").touch()
            (bench.path(name) / f"link{number}").symlink_to(outside)
        root = os.open(bench.path(name), os.O_RDONLY | os.O_DIRECTORY)
        bench.volume.retire(bench.workspace, name)
        here = Path(f"/proc/self/fd/{root}")

        def swap(here: Path = here) -> None:
            for number in range(20):
                exchange(here / f"dir{number}", here / f"link{number}")

        with meanwhile(swap):
            bench.volume.purge(bench.workspace, name, Cancel(20))
        os.close(root)
        assert bench.volume.trash(bench.workspace) == []
    assert account(outside) == before


@contextmanager
def bind_mounted(namespace: Namespace, what: Path, where: Path) -> Iterator[None]:
    where.mkdir()
    subprocess.run(["mount", "--bind", what, where], check=True)
    namespace.points.append(where)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=False, capture_output=True)
        namespace.points.remove(where)


@pytest.fixture(params=["openat2", "step by step"])
def way_to_open(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "step by step":
        monkeypatch.setattr(kernel, "HAS_OPENAT2", False)
    elif not kernel.HAS_OPENAT2:
        pytest.skip("this kernel has no openat2")
    return request.param


def test_what_is_mounted_inside_a_tree_is_not_cloned(
    bench: Bench, outside: Path, namespace: Namespace, way_to_open: str
) -> None:
    need_root("mounting filesystems")
    source, target = bench.live(), bench.intend()
    with bind_mounted(namespace, outside, bench.path(source) / "mounted"):
        error = attempt(lambda: bench.volume.clone(bench.workspace, source, target))
        if bench.volume.engine.name in _WALKERS:
            assert error is not None
            assert "mounted is a mount point" in error.detail
            assert not error.retryable
        if bench.has_tree(target):
            assert secrets_in(bench.path(target)) == []


def test_a_loop_of_directories_by_a_bind_mount_ends(bench: Bench, namespace: Namespace, way_to_open: str) -> None:
    need_root("mounting filesystems")
    source, target = bench.live(), bench.intend()
    with bind_mounted(namespace, bench.path(source), bench.path(source) / "again"):
        error = attempt(lambda: bench.volume.clone(bench.workspace, source, target, cancel=Cancel(20)))
        if bench.volume.engine.name in _WALKERS:
            assert error is not None
            assert "again is a mount point" in error.detail


def test_what_is_mounted_inside_a_tree_survives_its_removal(bench: Bench, outside: Path, namespace: Namespace) -> None:
    need_root("mounting filesystems")
    name = bench.live()
    (bench.path(name) / "file").touch()
    before = account(outside)
    with bind_mounted(namespace, outside, bench.path(name) / "mounted"):
        bench.volume.retire(bench.workspace, name)
        error = attempt(lambda: bench.volume.purge(bench.workspace, name, Cancel(20)))
        if error is not None:
            assert error.code is ErrorCode.REMOVE_FAILED
            assert "mount" in error.detail
        assert account(outside) == before
        trashed = Path(bench.volume.path) / bench.workspace / "trash" / name / "root" / "mounted"
        subprocess.run(["umount", "-l", trashed], check=False, capture_output=True)
        bench.volume.purge(bench.workspace, name)
    assert account(outside) == before
    assert bench.volume.trash(bench.workspace) == []


def test_a_fifo_in_a_files_place_does_not_block(bench: Bench) -> None:
    source = bench.live()
    root = bench.path(source)
    (root / "file").write_bytes(b"x")
    os.mkfifo(root / "fifo")
    with meanwhile(lambda: exchange(root / "file", root / "fifo")):
        until = time.monotonic() + 1
        while time.monotonic() < until:
            call = partial(bench.volume.clone, bench.workspace, source, bench.intend(), cancel=Cancel(20))
            error = attempt(call)
            assert error is None or error.code in (ErrorCode.TORN_CLONE, ErrorCode.CLONE_FAILED)


def test_a_file_that_grows_while_it_is_cloned_does_not_hold_it_up(bench: Bench) -> None:
    source = bench.live()
    with (bench.path(source) / "log").open("ab", buffering=0) as log:
        log.write(bytes(1 << 20))

        def grow() -> None:
            log.write(bytes(65536))
            time.sleep(0.001)

        with meanwhile(grow):
            target = bench.intend()
            bench.volume.clone(bench.workspace, source, target, cancel=Cancel(20))
    assert (bench.path(target) / "log").stat().st_size <= (bench.path(source) / "log").stat().st_size


LEASE_HOLDER = """
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], "r+b")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("ready", flush=True)
signal.pause()
"""


@contextmanager
def program(text: str, *arguments: str | Path) -> Iterator[None]:
    """Runs a program of its own while the block runs, after it printed a line; skips the test if it could not."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                pytest.skip(process.communicate()[1].decode().splitlines()[-1])
            yield
        finally:
            process.kill()


def test_a_lease_on_a_file_does_not_hold_up_the_clone(bench: Bench) -> None:
    source = bench.live()
    (bench.path(source) / "leased").write_bytes(b"x")
    with program(LEASE_HOLDER, bench.path(source) / "leased"):
        started = time.monotonic()
        error = attempt(lambda: bench.clone(source))
        assert time.monotonic() - started < 5
    if error is not None:
        assert error.code is ErrorCode.CLONE_FAILED
        assert "leased" in error.detail
        assert error.retryable


WRITER = """
import os, sys
os.chdir(sys.argv[1])
uid = int(sys.argv[2])
os.setgroups([]) if uid else None
os.setgid(uid); os.setuid(uid)
print("ready", flush=True)
number = 0
while True:
    number += 1
    for name in ("d", f"d/{number}", f"d/{number}/e"):
        try: os.mkdir(name)
        except OSError: pass
    try: os.close(os.open(f"d/{number}/f", os.O_CREAT | os.O_WRONLY))
    except OSError: pass
"""


@pytest.mark.parametrize("uid", [65534, 0], ids=["unprivileged", "root"])
def test_removal_wins_against_a_writer_or_ends_with_a_clear_error(bench: Bench, uid: int) -> None:
    need_root("becoming another user")
    name = bench.live(mode=0o777)
    with program(WRITER, bench.path(name), str(uid)):
        time.sleep(0.05)
        bench.volume.retire(bench.workspace, name)
        error = attempt(lambda: bench.volume.purge(bench.workspace, name, Cancel(20 if uid else 1)))
    if error is not None:
        assert uid == 0, f"an unprivileged writer won: {error}"
        assert error.code in (ErrorCode.REMOVE_FAILED, ErrorCode.DEADLINE_EXCEEDED)
    bench.volume.purge(bench.workspace, name)
    assert bench.volume.trash(bench.workspace) == []


def test_a_clone_keeps_everything_without_openat2(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "HAS_OPENAT2", False)
    source = bench.live()
    build_everything(bench.path(source), devices=os.geteuid() == 0)
    target = bench.clone(source)
    assert account(bench.path(target)) == account(bench.path(source))
    bench.purge(source)
    assert bench.volume.trees(bench.workspace) == [target]


@on("reflink-on-btrfs", "btrfs-on-btrfs")
def test_a_nested_subvolume_is_refused_or_cloned_and_removed(bench: Bench) -> None:
    source, target = bench.live(), bench.intend()
    nested = bench.path(source) / "dir" / "nested"
    nested.parent.mkdir()
    subprocess.run(["btrfs", "-q", "subvolume", "create", nested], check=True)
    (nested / "file").write_bytes(b"x")
    error = attempt(lambda: bench.volume.clone(bench.workspace, source, target))
    if bench.volume.engine.name == "btrfs":
        assert error is not None
        assert "dir/nested" in error.detail
        assert not error.retryable
    else:
        assert (bench.path(target) / "dir" / "nested" / "file").read_bytes() == b"x"
    bench.purge(source)
    assert bench.volume.trash(bench.workspace) == []


@on("reflink-on-btrfs", "btrfs-on-btrfs")
def test_a_file_without_copy_on_write_is_cloned(bench: Bench) -> None:
    source = bench.live()
    (bench.path(source) / "file").touch()
    subprocess.run(["chattr", "+C", bench.path(source) / "file"], check=True)
    (bench.path(source) / "file").write_bytes(os.urandom(100_000))
    target = bench.clone(source)
    assert account(bench.path(target)) == account(bench.path(source))
