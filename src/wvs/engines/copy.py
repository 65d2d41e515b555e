"""The engine `copy`: reads and writes every byte, inside the kernel where it can. Works on any POSIX filesystem."""

import os

from wvs.engines.base import METADATA_PER_FILE, Totals, TreeDir
from wvs.engines.files import FileEngine, scratch_file
from wvs.engines.trees.filling import copy_content


class CopyEngine(FileEngine):
    """Its time and space grow with the content."""

    name = "copy"
    filling = "copy"

    def trial(self, directory: TreeDir) -> str:
        """Copies a scratch file."""
        with scratch_file(directory) as (source, _), scratch_file(directory) as (target, _):
            os.write(source, bytes(4096))
            copy_content(source, target, os.fstat(source), lambda _: None)
        return "files can be written and read"

    def space_needed(self, totals: Totals | None) -> int:
        """As much as the tree occupies."""
        return totals.files * METADATA_PER_FILE + totals.allocated if totals is not None else 0
