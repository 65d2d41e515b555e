"""The table of mounts, and which filesystems may show a name as it was before another host's rename."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.skips import need_root

from wvs.engines.mounts import caches_names

SHOWS_POINTS = "from wvs.engines.mounts import mounts; print(*(ascii(mount.point) for mount in mounts()))"


def test_a_mount_whose_path_holds_other_line_ends_is_one_mount(tmp_path: Path) -> None:
    need_root("mounts in a namespace of its own")
    place = tmp_path / "a\r\x0c\x85\u2028b c\nd"
    place.mkdir()
    script = 'mount -t tmpfs none "$1"; shift; exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, "sh", str(place), sys.executable, "-c", SHOWS_POINTS]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert ascii(str(place)) in shown


def test_the_table_follows_a_mount_and_an_unmount(tmp_path: Path) -> None:
    need_root("mounts in a namespace of its own")
    script = "import os, subprocess, sys; from wvs.engines.mounts import mounts\n"
    script += "has = lambda: sys.argv[1] in {mount.point for mount in mounts()}\n"
    script += "print(has(), subprocess.call(['mount', '-t', 'tmpfs', 'none', sys.argv[1]]), has(), "
    script += "subprocess.call(['umount', sys.argv[1]]), has())"
    argv = ["unshare", "-m", sys.executable, "-c", script, str(tmp_path.resolve())]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "0", "True", "0", "False"]


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"])
def test_a_filesystem_of_one_host_shows_every_rename_at_once(filesystem: str) -> None:
    assert not caches_names(filesystem)


@pytest.mark.parametrize(
    "filesystem",
    [
        *("fuse", "fuse.juicefs", "fuse.ext4", "fuseblk", "virtiofs", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph"),
        *("lustre", "gfs2", "one that is not known"),
    ],
)
def test_every_other_filesystem_may_have_cached_the_name(filesystem: str) -> None:
    assert caches_names(filesystem)
