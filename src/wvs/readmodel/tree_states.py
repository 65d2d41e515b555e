"""The states of a directory according to the log. The sweeper may touch only abandoned, retired and removed ones."""

from enum import StrEnum
from typing import Final


class TreeState(StrEnum):
    """A task names its `intended` directory when it starts. The directory becomes live, a snapshot, or abandoned."""

    INTENDED = "intended"
    LIVE = "live"
    SNAPSHOT = "snapshot"
    RETIRED = "retired"
    ABANDONED = "abandoned"
    REMOVED = "removed"
    LOST = "lost"


OBSOLETE: Final = frozenset({TreeState.ABANDONED, TreeState.RETIRED, TreeState.REMOVED})
"""States of trees that may be removed. Trees in any other state are kept."""
