"""Where a process finds the live tree: through which mount, and whether that mount still leads to it."""

import os
from collections.abc import Iterator
from enum import Enum, auto

from msgspec import Struct

from wvs.engines.mounts import mounts

Identity = tuple[int, int]


class View(Enum):
    """What a process has of the live tree."""

    LIVE = auto()
    """It has the live tree, through a mount that follows a switch: of the workspace's directory or above."""
    LIVE_UNTIL_SWITCH = auto()
    """It has the live tree, through a mount of the tree itself, which stays with that directory at a switch."""
    STALE = auto()
    """It has a mount of a tree of this workspace that is not the live one."""
    NOTHING = auto()
    """It has no mount that leads to the live tree."""


class MountedTree(Struct, frozen=True):
    """The view of a process, and the path at which the process has it."""

    view: View
    path: str = ""


def mounted_tree(pid: int, live: str, workspace: str) -> MountedTree:
    """How process `pid` sees the live tree, whose real path here is `live`, of the workspace with id `workspace`.

    A bind mount holds a directory, not a path: after a switch the mounted directory is another tree's. So directories
    are compared by device and inode, from the tree upward. Raises `OSError` if this process may not look.
    """
    os.stat(f"/proc/{pid}/root/")  # noqa: PTH116 - raises without the right to look
    above = dict(_upward(live))
    wanted = next(identity for identity, below in above.items() if not below)
    stale = ""
    found: MountedTree | None = None
    for mount in mounts(pid):
        below = above.get(_identity(f"/proc/{pid}/root{mount.point}"))
        if below is not None and _identity(f"/proc/{pid}/root{mount.point}/{below}") == wanted:
            path = f"{mount.point.rstrip('/')}/{below}".rstrip("/")
            is_follower = below.count("/") >= _DEPTH_OF_TREE
            found = MountedTree(View.LIVE if is_follower else View.LIVE_UNTIL_SWITCH, path)
            if not is_follower:
                return found  # a container with both mounts works in the one of the tree
        elif f"/{workspace}/" in mount.root:
            stale = mount.point
    if found is not None:
        return found
    return MountedTree(View.STALE, stale) if stale else MountedTree(View.NOTHING)


_DEPTH_OF_TREE = 1
"""`live/root` below the directory of the workspace has one slash, and one more for each directory above that."""


def _upward(live: str) -> Iterator[tuple[Identity, str]]:
    """The directories from the live tree up to the root of its filesystem namespace, with the way back down."""
    path: str = os.path.realpath(live)
    below = ""
    while True:
        status = os.stat(path)  # noqa: PTH116 - text, like the tables of the kernel
        yield (status.st_dev, status.st_ino), below
        if path == "/":
            return
        path, _, name = path.rpartition("/")
        path = path or "/"
        below = f"{name}/{below}".rstrip("/")


def _identity(path: str) -> Identity:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return (0, 0)  # an unmounted or foreign file: not the live tree
    return status.st_dev, status.st_ino
