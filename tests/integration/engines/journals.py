"""Reading the clone journal that `WVS_CLONE_JOURNAL` makes the executors write."""

from pathlib import Path

import msgspec

from wvs.engines.base import CloneMark


def read_journal(path: Path) -> list[CloneMark]:
    """All marks of a journal file, in the order written."""
    return [msgspec.json.decode(line, type=CloneMark) for line in path.read_bytes().splitlines()]
