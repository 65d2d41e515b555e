"""A clone is equal to its source: judged by rsync, and by a comparison of the attributes that rsync does not check."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.integration.engines.conftest import Bench
from tests.integration.engines.trees import SPARSE_BYTES, account, allocated, build_everything, make_socket
from tests.skips import need_program


def rsync_differences(source: Path, target: Path) -> str:
    need_program("rsync")
    command = ["rsync", "-aHAX", "--dry-run", "--itemize-changes", "--checksum", "--delete"]
    done = subprocess.run([*command, f"{source}/", f"{target}/"], capture_output=True, text=True, check=True)
    return done.stdout


def assert_equal(bench: Bench, source: str, target: str) -> None:
    assert account(bench.path(target)) == account(bench.path(source))
    assert rsync_differences(bench.path(source), bench.path(target)) == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_clone_keeps_everything(bench: Bench, workers: int) -> None:
    bench.volume.engine.workers = workers
    source = bench.live()
    build_everything(bench.path(source), devices=os.geteuid() == 0)

    target = bench.intend()
    result = bench.volume.clone(bench.workspace, source, target)

    assert_equal(bench, source, target)
    assert result.notes == ()
    assert result.sockets == 0


def test_a_clone_of_a_clone_keeps_everything(bench: Bench) -> None:
    source = bench.live()
    build_everything(bench.path(source), devices=os.geteuid() == 0)

    assert_equal(bench, source, bench.clone(bench.clone(source)))


def test_holes_stay_holes(bench: Bench) -> None:
    source = bench.live()
    with (bench.path(source) / "sparse").open("wb") as file:
        file.truncate(SPARSE_BYTES)
        file.seek(SPARSE_BYTES // 2)
        file.write(b"data")
        os.fsync(file.fileno())
    target = bench.clone(source)
    bench.volume.sync(bench.workspace, target)

    assert (bench.path(target) / "sparse").stat().st_size == SPARSE_BYTES
    assert allocated(bench.path(target)) <= allocated(bench.path(source)) + 65536


def test_acls_are_kept(bench: Bench) -> None:
    need_program("setfacl")
    source = bench.live()
    (bench.path(source) / "directory").mkdir()
    (bench.path(source) / "file").touch()
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:77:r", bench.path(source) / "file"], check=True)
    subprocess.run(["setfacl", "-m", "d:u:1234:rwx,u:9:x", bench.path(source) / "directory"], check=True)

    assert_equal(bench, source, bench.clone(source))


def test_a_default_acl_of_the_volume_does_not_reach_the_clone(bench: Bench) -> None:
    need_program("setfacl")
    source = bench.live()
    (bench.path(source) / "directory").mkdir()
    (bench.path(source) / "directory" / "file").touch()
    trees = bench.path(source).parent.parent
    subprocess.run(["setfacl", "-m", "d:u:1234:rwx", trees], check=True)

    assert_equal(bench, source, bench.clone(source))


def test_sockets_are_skipped_and_counted_by_engines_that_look_at_files(bench: Bench) -> None:
    source = bench.live()
    make_socket(bench.path(source) / "socket")
    (bench.path(source) / "file").touch()
    target = bench.intend()

    result = bench.volume.clone(bench.workspace, source, target)

    skips = bench.volume.engine.name in ("copy", "reflink")
    assert result.sockets == skips
    assert sorted(os.listdir(bench.path(target))) == (["file"] if skips else ["file", "socket"])


def test_the_result_counts_names_and_sizes_once(bench: Bench) -> None:
    source = bench.live()
    (bench.path(source) / "directory").mkdir()
    (bench.path(source) / "one").write_bytes(b"12345")
    os.link(bench.path(source) / "one", bench.path(source) / "directory" / "same")
    (bench.path(source) / "link").symlink_to("one")
    target = bench.intend()

    result = bench.volume.clone(bench.workspace, source, target)

    totals = bench.volume.measure(bench.workspace, target)
    assert (totals.files, totals.bytes) == (3, 5)
    if result.files is not None:
        assert (result.files, result.bytes) == (3, 5)


def test_a_path_longer_than_any_system_call_takes_is_cloned_and_removed(bench: Bench) -> None:
    source = bench.live()
    levels = deepen(bench.path(source), levels=300, name="d" * 50)
    target = bench.clone(source)

    assert deepest(bench.path(target), "d" * 50) == levels
    bench.purge(target)
    bench.purge(source)
    assert bench.volume.trash(bench.workspace) == []


def deepen(root: Path, levels: int, name: str) -> int:
    """Makes a chain of directories by descriptors, with a file and a hard link to it at its end."""
    directory = os.open(root, os.O_RDONLY)
    first = os.open("first", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory)
    os.close(first)
    top = os.dup(directory)
    for _ in range(levels):
        os.mkdir(name, dir_fd=directory)
        deeper = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = deeper
    os.link("first", "last", src_dir_fd=top, dst_dir_fd=directory)
    os.close(top)
    os.close(directory)
    return levels


def deepest(root: Path, name: str) -> int:
    """How deep the chain goes that ends with the hard link."""
    directory = os.open(root, os.O_RDONLY)
    inode = os.stat("first", dir_fd=directory).st_ino
    levels = 0
    while name in os.listdir(directory):
        deeper = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = deeper
        levels += 1
    assert os.stat("last", dir_fd=directory).st_ino == inode
    os.close(directory)
    return levels
