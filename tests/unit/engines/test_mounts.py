"""Which filesystems may show a name as it was before another host's rename."""

import pytest

from wvs.engines.mounts import caches_names


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
