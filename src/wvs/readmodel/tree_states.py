"""The states of a directory according to the log. The sweeper may touch abandoned, retired and removed ones only."""

from enum import StrEnum


class TreeState(StrEnum):
    """A task that starts names an `intended` directory, which becomes live, a snapshot, or abandoned."""

    INTENDED = "intended"
    LIVE = "live"
    SNAPSHOT = "snapshot"
    RETIRED = "retired"
    ABANDONED = "abandoned"
    REMOVED = "removed"
    LOST = "lost"
