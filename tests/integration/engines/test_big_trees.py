"""Trees of the size that agents really have; minutes, so by `make storage` only."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.integration.engines.conftest import Bench
from tests.integration.engines.test_fidelity import deepen, deepest, rsync_differences
from tests.integration.engines.trees import build_everything, make_socket

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(7200)]

JUICEFS_FILES = int(os.environ.get("WVS_JUICEFS_FILES", "10000"))
"""On SQLite it takes 2 to 3 ms to make a file: a tree of 100,000 takes the better half of an hour."""
_SPARSE = 5 << 30


def many(bench: Bench) -> int:
    return JUICEFS_FILES if bench.volume.engine.name == "juicefs" else 100_000


def fill(root: Path, files: int, directories: int) -> None:
    for number in range(files):
        directory = root / f"d{number % directories}"
        if number < directories:
            directory.mkdir()
        (directory / f"file{number}").write_bytes(b"%d" % number)


def test_a_big_tree_with_everything_in_it_comes_out_equal(bench: Bench) -> None:
    """One tree of all that the other tests take one by one; only sockets may be missing, and then they are counted."""
    source, target = bench.live(), bench.intend()
    root = bench.path(source)
    build_everything(root, devices=True)
    (root / "many").mkdir()
    fill(root / "many", many(bench), 500)
    for number in range(1000):
        os.link(root / "many" / f"d{number % 500}" / f"file{number}", root / f"many/d{(number + 9) % 500}/link{number}")
    (root / "wide").mkdir()
    for number in range(many(bench)):
        (root / "wide" / f"{number}").touch()
    write_sparse(root / "sparse of 5 GB")
    deepen(root, levels=(4080 - len(str(root))) // 51, name="d" * 50)
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:77:r", root / "attributed"], check=True)
    subprocess.run(["setfacl", "-m", "d:u:1234:rwx", root / "dir"], check=True)
    make_socket(root / "socket")
    os.utime(root, ns=(1, 1_500_000_000_000_000_001))

    result = bench.volume.clone(bench.workspace, source, target)

    skips = bench.volume.engine.name in ("copy", "reflink")
    assert rsync_differences(root, bench.path(target)) == ("cS+++++++++ socket\n" if skips else "")
    assert (result.sockets, result.notes) == (skips, ())
    bench.purge(target)
    bench.purge(source)
    assert bench.volume.trash(bench.workspace) == []


def write_sparse(path: Path) -> None:
    with path.open("wb") as file:
        for place in range(0, _SPARSE, _SPARSE // 10):
            file.seek(place)
            file.write(b"data at %d" % place)
        file.truncate(_SPARSE)
        file.flush()
        os.fsync(file.fileno())


def test_100_000_small_files_are_cloned_and_removed(bench: Bench) -> None:
    source = bench.live()
    fill(bench.path(source), many(bench), 500)
    target = bench.clone(source)
    assert rsync_differences(bench.path(source), bench.path(target)) == ""
    bench.purge(target)
    bench.purge(source)
    assert bench.volume.trash(bench.workspace) == []


def test_a_directory_of_100_000_entries_is_cloned_and_removed(bench: Bench) -> None:
    source = bench.live()
    root = bench.path(source)
    for number in range(many(bench)):
        if number % 10 == 0:
            os.symlink("nowhere", root / f"{number}")
        elif number % 10 == 1:
            (root / f"{number}").mkdir()
        else:
            (root / f"{number}").touch()
    target = bench.clone(source)
    assert rsync_differences(root, bench.path(target)) == ""
    bench.purge(target)
    assert bench.volume.trash(bench.workspace) == []


def test_10_000_hard_links_across_directories_are_kept(bench: Bench) -> None:
    source = bench.live()
    root = bench.path(source)
    fill(root, 1000, 100)
    for number in range(10_000 if many(bench) > 10_000 else 2000):
        os.link(root / f"d{number % 100}" / f"file{number % 100}", root / f"d{(number + 7) % 100}" / f"link{number}")
    target = bench.clone(source)
    assert rsync_differences(root, bench.path(target)) == ""


def test_a_sparse_file_of_5_gb_stays_sparse(bench: Bench) -> None:
    source = bench.live()
    write_sparse(bench.path(source) / "sparse")
    target = bench.clone(source)
    bench.volume.sync(bench.workspace, target)
    clone = bench.path(target) / "sparse"
    assert clone.stat().st_size == _SPARSE
    if bench.volume.engine.name != "juicefs":  # it reckons holes as space
        assert clone.stat().st_blocks * 512 < 2 << 20
    with clone.open("rb") as file:
        for place in range(0, _SPARSE, _SPARSE // 10):
            file.seek(place)
            assert file.read(30).startswith(b"data at %d" % place)
    assert subprocess.run(["cmp", bench.path(source) / "sparse", clone], check=False).returncode == 0


def test_a_chain_of_2_000_directories_is_cloned_and_removed(bench: Bench) -> None:
    """Deeper than descriptors, recursion and PATH_MAX."""
    source = bench.live()
    levels = deepen(bench.path(source), levels=2000, name="deep")
    target = bench.clone(source)
    assert deepest(bench.path(target), "deep") == levels
    bench.purge(source)
    bench.purge(target)
    assert bench.volume.trash(bench.workspace) == []
