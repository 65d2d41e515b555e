"""Trees that resist their removal: removed where rights allow, else named with the command that helps."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.engines.conftest import KINDS, Bench, attempt, on
from tests.integration.engines.filesystems import Namespace
from tests.integration.engines.test_unprivileged import open_directory, run_as_nobody
from tests.integration.engines.trees import account
from tests.skips import need_program, need_root

from wvs.domain.errors import ErrorCode

__all__ = ["open_directory"]

_WITHOUT_RIGHTS = "-chown,-dac_override,-dac_read_search,-fowner,-linux_immutable"


def make_fixed(path: Path, flag: str) -> None:
    need_root("making a file immutable")
    done = subprocess.run(["chattr", f"+{flag}", path], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("the temporary directory is on a filesystem without the flags of chattr")


def flags_of(path: Path) -> str:
    return subprocess.run(["lsattr", "-d", path], check=True, capture_output=True, text=True).stdout.split()[0]


def subvolume(*arguments: str | Path) -> None:
    subprocess.run(["btrfs", "-q", "subvolume", *arguments], check=True)


def trashed(bench: Bench, name: str) -> Path:
    bench.volume.retire(bench.workspace, name)
    return Path(bench.volume.path) / bench.workspace / "trash" / name


@on(*(kind for kind in KINDS if kind != "juicefs-on-juicefs"))
@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("place", [".", "dir", "dir/file"])
def test_immutable_content_is_cloned_and_removed(bench: Bench, flag: str, place: str) -> None:
    """JuiceFS has no such flags."""
    source = bench.live()
    (bench.path(source) / "dir").mkdir()
    (bench.path(source) / "dir" / "file").write_bytes(b"x")
    make_fixed(bench.path(source) / place, flag)
    target = bench.clone(source)
    assert account(bench.path(target)).keys() == account(bench.path(source)).keys()
    bench.purge(source)
    bench.purge(target)
    assert bench.volume.trash(bench.workspace) == []


@on("copy-on-here", "reflink-on-xfs")
def test_a_file_with_a_further_name_outside_the_tree_keeps_its_flags_there(bench: Bench) -> None:
    source = bench.live()
    outside = Path(bench.volume.path) / "outside"
    outside.write_bytes(b"x")
    os.link(outside, bench.path(source) / "file")
    make_fixed(outside, "i")
    bench.purge(source)
    assert bench.volume.trash(bench.workspace) == []
    assert "i" in flags_of(outside)
    assert outside.stat().st_nlink == 1


@on("reflink-on-btrfs", "btrfs-on-btrfs")
def test_read_only_subvolumes_inside_a_tree_are_removed(bench: Bench) -> None:
    """As snapper and container tools leave them."""
    source = bench.live()
    home = bench.path(source) / "home"
    subvolume("create", home)
    (home / "dir").mkdir()
    (home / "dir" / "file").write_bytes(b"x" * 100_000)
    (bench.path(source) / ".snapshots").mkdir()
    subvolume("snapshot", "-r", home, bench.path(source) / ".snapshots" / "1")
    subvolume("create", home / "dir" / "deeper")
    subprocess.run(["btrfs", "property", "set", "-ts", home / "dir" / "deeper", "ro", "true"], check=True)
    subprocess.run(["btrfs", "property", "set", "-ts", home, "ro", "true"], check=True)
    bench.purge(source)
    assert bench.volume.trash(bench.workspace) == []


def test_content_of_another_owner_is_named_with_the_command_that_removes_it(open_directory: Path) -> None:
    name, workspace = run_as_nobody(open_directory, "print(source, bench.workspace)").split()
    tree = open_directory / "volume" / workspace / "trees" / name
    (tree / "root" / "build").mkdir()
    (tree / "root" / "build" / "object").write_bytes(b"x")
    script = f"""
name, bench.workspace = {name!r}, {workspace!r}
error = attempt(lambda: bench.purge(name))
print(error and (error.code, error.retryable, error.detail))
print(error and error.hint)
print(bench.volume.why_it_stays(bench.workspace, name))
"""
    said, hint, reason = run_as_nobody(open_directory, script).splitlines()
    assert "REMOVE_FAILED" in said
    assert "False" in said
    assert "root/build/object is in a directory of uid 0, and the service runs as uid 65534" in said
    assert reason.endswith(hint)
    command = re.search(r"as root: (.*?); then", hint)
    assert command is not None
    assert str(tree.parent.parent / "trash" / name) in command[1]
    subprocess.run(["sh", "-c", command[1]], check=True)
    assert run_as_nobody(open_directory, script).splitlines() == ["None", "None", ""]


def test_flags_that_the_service_may_not_clear_are_named_with_the_command(open_directory: Path) -> None:
    name, workspace = run_as_nobody(open_directory, "(root / 'f').touch(); print(source, bench.workspace)").split()
    file = open_directory / "volume" / workspace / "trees" / name / "root" / "f"
    make_fixed(file, "i")
    script = f"""
name, bench.workspace = {name!r}, {workspace!r}
error = attempt(lambda: bench.purge(name))
print(error.detail if error else "removed")
print(error.hint if error else "")
"""
    detail, hint = run_as_nobody(open_directory, script).splitlines()
    assert "root/f or its directory is immutable or append-only" in detail
    command = re.search(r"as root: (.*?); then", hint)
    assert command is not None
    subprocess.run(["sh", "-c", command[1]], check=True)
    assert run_as_nobody(open_directory, script).splitlines()[0] == "removed"


@on("btrfs-on-btrfs")
def test_a_read_only_subvolume_that_the_service_may_not_change_is_named_with_the_command(bench: Bench) -> None:
    source = bench.live()
    nested = bench.path(source) / "nested"
    subvolume("create", nested)
    (nested / "file").touch()
    os.chown(nested, 1234, 1234)
    subprocess.run(["btrfs", "property", "set", "-ts", nested, "ro", "true"], check=True)
    place = trashed(bench, source) / "root" / "nested"
    script = """
import sys
from wvs.engines.errors import EngineError
from wvs.engines.volume.opening import open_volume
try:
    open_volume(sys.argv[1]).purge(sys.argv[2], sys.argv[3])
except EngineError as error:
    print(error.code, error.retryable, error.detail)
    print(error.hint)
"""
    drop = [need_program("setpriv"), f"--bounding-set={_WITHOUT_RIGHTS}", f"--inh-caps={_WITHOUT_RIGHTS}"]
    command = [*drop, sys.executable, "-c", script, bench.volume.path, bench.workspace, source]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0].startswith("REMOVE_FAILED False root/nested is a read-only btrfs subvolume")
    command = re.search(r"as root: (btrfs property set .*?); then", said[1])
    assert command is not None
    assert str(place) in command[1]
    bench.volume.purge(bench.workspace, source)
    assert bench.volume.trash(bench.workspace) == []


@pytest.fixture
def swap(bench: Bench) -> Iterator[tuple[str, Path]]:
    """A live tree with an active swap file in it, whose name holds what ends a line or a field elsewhere."""
    source = bench.live()
    file = bench.path(source) / "d" / "swap\u2028\xa0\x85x"
    file.parent.mkdir()
    file.touch(mode=0o600)
    subprocess.run(["chattr", "+C", file], check=False, capture_output=True)
    file.write_bytes(bytes(8 << 20))
    subprocess.run([need_program("mkswap"), file], check=True, capture_output=True)
    on_now = subprocess.run([need_program("swapon"), "-p", "0", file], check=False, capture_output=True, text=True)
    if on_now.returncode != 0:
        pytest.skip(f"the kernel allows no swap file here: {on_now.stderr.strip()}")
    try:
        yield source, file
    finally:
        subprocess.run(["swapoff", file], check=False, capture_output=True)


@on("copy-on-ext4", "reflink-on-xfs", "btrfs-on-btrfs")
def test_an_active_swap_file_is_the_reason_that_a_clone_gives_and_is_not_waited_for(
    bench: Bench, swap: tuple[str, Path]
) -> None:
    source, file = swap
    error = attempt(lambda: bench.clone(source))
    assert error is not None
    assert error.code is ErrorCode.CLONE_FAILED
    assert not error.retryable
    assert "ETXTBSY" in error.detail
    assert "d/swap" in error.detail
    assert str(bench.path(source)) in error.detail
    assert "swapoff" in error.hint
    subprocess.run(["swapoff", file], check=True)
    bench.clone(source)


@on("copy-on-ext4", "reflink-on-xfs", "btrfs-on-btrfs")
def test_an_active_swap_file_is_the_reason_that_a_removal_gives(bench: Bench, swap: tuple[str, Path]) -> None:
    source, file = swap
    place = trashed(bench, source)
    error = attempt(lambda: bench.volume.purge(bench.workspace, source))
    assert error is not None
    assert error.code is ErrorCode.REMOVE_FAILED
    assert not error.retryable
    assert "is an active swap file" in error.detail
    assert "root/d/swap" in error.detail
    assert "swapoff" in error.hint
    subprocess.run(["swapoff", place / "root" / "d" / file.name], check=True)
    bench.volume.purge(bench.workspace, source)
    assert bench.volume.trash(bench.workspace) == []
    assert not file.exists()


@on("copy-on-here", "reflink-on-btrfs")
def test_a_reason_is_replaced_and_goes_with_its_tree(bench: Bench, namespace: Namespace) -> None:
    need_root("mounting")
    namespace.enter()
    source = bench.live()
    place = trashed(bench, source)
    (place / "root" / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place / "root" / "mounted"], check=True)
    for _ in range(2):
        error = attempt(lambda: bench.volume.purge(bench.workspace, source))
        assert error is not None
        assert bench.volume.why_it_stays(bench.workspace, source) == f"{error.detail}. {error.hint}"
    subprocess.run(["umount", place / "root" / "mounted"], check=True)
    bench.volume.purge(bench.workspace, source)
    assert bench.volume.why_it_stays(bench.workspace, source) == ""
    assert not place.exists()
