"""The engine `reflink`: each new file shares the blocks of the old one (FICLONE). XFS; btrfs without subvolumes."""

import os

from wvs.engines.base import METADATA_PER_FILE, Totals, TreeDir
from wvs.engines.files import FileEngine, scratch_file
from wvs.engines.kernel import clone_file


class ReflinkEngine(FileEngine):
    """Its time grows with the number of files, not with their size."""

    name = "reflink"
    filling = "reflink"

    def trial(self, directory: TreeDir) -> str:
        """Shares the block of a scratch file with another."""
        with scratch_file(directory) as (source, _), scratch_file(directory) as (target, _):
            os.write(source, bytes(4096))
            clone_file(source, target)
        return "files can share blocks (FICLONE)"

    def space_needed(self, totals: Totals | None) -> int:
        """Metadata only."""
        return totals.files * METADATA_PER_FILE if totals is not None else 0
