"""What the log says of a directory: the sweeper may only touch what is abandoned, retired or removed."""

from enum import StrEnum


class TreeState(StrEnum):
    """`intended` was named by a task that started; it becomes live or a snapshot, or is abandoned with its attempt."""

    INTENDED = "intended"
    LIVE = "live"
    SNAPSHOT = "snapshot"
    RETIRED = "retired"
    ABANDONED = "abandoned"
    REMOVED = "removed"
    LOST = "lost"
