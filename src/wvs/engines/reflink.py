"""The engine `reflink`: each new file shares the blocks of the old one (FICLONE). XFS; btrfs without subvolumes."""

import errno
import os

from wvs.engines.base import METADATA_PER_FILE, Totals, TreeDir
from wvs.engines.files import FileEngine, scratch_file
from wvs.engines.kernel import FS_NOCOW_FL, clone_file, inode_flags, set_inode_flags
from wvs.engines.treecopy import Pulse


class ReflinkEngine(FileEngine):
    """Clones in time that grows with the number of files, not with their size."""

    name = "reflink"

    def fill(self, source: int, target: int, status: os.stat_result, pulse: Pulse) -> None:
        """Shares all blocks at once."""
        share_blocks(source, target)
        pulse(status.st_size)

    def trial(self, directory: TreeDir) -> str:
        """Shares the block of a scratch file."""
        with scratch_file(directory) as (source, _), scratch_file(directory) as (target, _):
            os.write(source, bytes(4096))
            clone_file(source, target)
        return "files can share blocks (FICLONE)"

    def space_needed(self, totals: Totals | None) -> int:
        """Only metadata."""
        return totals.files * METADATA_PER_FILE if totals is not None else 0


def share_blocks(source: int, target: int) -> None:
    """FICLONE, also for a btrfs file without copy-on-write, which only another such file can share blocks with."""
    try:
        clone_file(source, target)
    except OSError as error:
        flags = inode_flags(source)
        if error.errno != errno.EINVAL or not flags & FS_NOCOW_FL:
            raise
        set_inode_flags(target, inode_flags(target) | FS_NOCOW_FL)
        clone_file(source, target)
