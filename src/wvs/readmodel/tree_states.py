"""The states of a directory according to the log. The sweeper may touch only abandoned, retired and removed ones."""

from enum import StrEnum


class TreeState(StrEnum):
    """A task names its `intended` directory when it starts. The directory becomes live, a snapshot, or abandoned."""

    INTENDED = "intended"
    LIVE = "live"
    SNAPSHOT = "snapshot"
    RETIRED = "retired"
    ABANDONED = "abandoned"
    REMOVED = "removed"
    LOST = "lost"
