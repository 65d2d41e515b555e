"""Walking a hostile tree by directory descriptors: any depth, few descriptors, little memory.

No path is resolved as a whole: the owner of the content may swap its components for links, and it may be longer than
PATH_MAX. Instead each directory is opened from its parent. The tempting recursion that keeps every ancestor open runs
out of descriptors in a tree 1,000 levels deep. Here only the nearest ancestors stay open; the others are reached again
through `..`, with a check that it is the directory that the walk left.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, TypeVar

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel
from wvs.engines.errors import EngineError, UnreadableError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, open_unseen

OPEN_LEVELS: Final = 64
_SHOWN_PATH: Final = 300
UNREADABLE_HINT: Final = (
    "let the service's user read it (as root: chown UID PATH, or setfacl -m u:UID:rX PATH), remove it, or run the "
    "executor as root; or set WVS_UNREADABLE=skip on every executor (engines copy and reflink), and clones leave such "
    "entries out; then retry the task"
)


class TreePath:
    """The place of a directory, as a chain of names up to the root: memory grows with the depth, not its square."""

    __slots__ = ("name", "parent")

    def __init__(self, parent: "TreePath | None", name: str) -> None:
        self.parent = parent
        self.name = name

    def names(self) -> list[str]:
        """The components from the tree's root down to here; empty for the root."""
        components: list[str] = []
        place = self
        while place.parent is not None:
            components.append(place.name)
            place = place.parent
        components.reverse()
        return components

    def shown(self, name: str = "") -> str:
        """The path of the entry `name`, relative to the tree's root, printable and cut to a readable length."""
        path = ascii("/".join([*self.names(), name]).rstrip("/") or ".")[1:-1]
        return path if len(path) <= _SHOWN_PATH else f"{path[:100]}…{path[-(_SHOWN_PATH - 100) :]}"


class Level:
    """One directory of a walk, open in one tree or in two parallel ones (source and target).

    The walk holds it while it works in it, and so does each batch that a worker process has. The last holder to release
    it completes and closes it.
    """

    def __init__(self, place: TreePath, descriptors: list[int]) -> None:
        self.place = place
        self.descriptors = descriptors
        self.status = os.fstat(descriptors[0])
        self.subdirectories: list[str] = []
        self._identities = [_identity(descriptor) for descriptor in descriptors]
        self._holders = 1
        self._abandoned = False

    @property
    def source(self) -> int:
        """The descriptor of the directory that is read."""
        return self.descriptors[0]

    def hold(self) -> None:
        """Adds a holder."""
        self._holders += 1

    def release(self) -> None:
        """Removes a holder; the last one completes and closes the directory."""
        self._holders -= 1
        if self._holders > 0:
            return
        try:
            if not self._abandoned:
                self.complete()
        finally:
            self.close()

    def abandon(self) -> None:
        """Removes a holder and makes sure that the directory is not completed."""
        self._abandoned = True
        self.release()

    def complete(self) -> None:
        """Completes the directory: called once, when all work inside is done and it is still open."""

    def park(self) -> None:
        """Closes the directory until `reopen_from`, unless a batch still works in it."""
        if self._holders == 1:
            self.close()

    def close(self) -> None:
        """Closes the descriptors. Re-entrant."""
        descriptors, self.descriptors = self.descriptors, []
        for descriptor in descriptors:
            os.close(descriptor)

    def reopen_from(self, child: "Level") -> None:
        """Reopens a parked directory through the `..` of a child that the walk entered from it."""
        if self.descriptors:
            return
        for descriptor, identity in zip(child.descriptors, self._identities, strict=True):
            self.descriptors.append(os.open("..", OPEN_DIRECTORY, dir_fd=descriptor))
            if _identity(self.descriptors[-1]) != identity:
                raise torn_clone(self.place, child.place.name, "was moved")


L = TypeVar("L", bound=Level)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def torn_clone(place: TreePath, name: str, what: str) -> EngineError:
    """The error for a tree that changed during the walk although it should be frozen."""
    return EngineError(
        ErrorCode.TORN_CLONE,
        f"{place.shown(name)} {what} while the tree was read",
        "a process outside the freeze wrote to the tree: run it under `wvsctl agent run`",
    )


def open_subdirectory(level: Level, name: str) -> int:
    """Opens the directory `name` of `level`. Raises an error that names it if it is a link or a mount point."""
    try:
        return open_unseen(level.source, name, OPEN_DIRECTORY)
    except OSError as error:
        raise unreadable(error, level, name) from error


def unreadable(error: OSError, level: Level, name: str) -> EngineError:
    """The error for a listed entry that cannot be opened: it changed, is a mount point, or permission is missing."""
    place = level.place
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.ENXIO:
            return torn_clone(place, name, "was replaced")
        case errno.EXDEV:
            return EngineError(
                ErrorCode.CLONE_FAILED,
                f"{place.shown(name)} is a mount point; a tree is one filesystem",
                "unmount it, or mount it outside the workspace",
                retryable=False,
            )
        case errno.EACCES | errno.EPERM:
            return denied(level, name)
        case _:
            return from_os_error(error, ErrorCode.CLONE_FAILED, f"reading {place.shown(name)}")


def denied(level: Level, name: str) -> UnreadableError:
    """The error for an entry that the service may not read."""
    detail = f"the service (uid {os.geteuid()}) may not read {level.place.shown(name)} ({owner_of(level, name)})"
    return UnreadableError(ErrorCode.CLONE_FAILED, detail, UNREADABLE_HINT, retryable=False)


def owner_of(level: Level, name: str) -> str:
    """Owner and mode of the entry `name` for a person; of its directory if that does not let the service see it."""
    try:
        status, place = os.stat(name, dir_fd=level.source, follow_symlinks=False), ""
    except OSError:
        status, place = level.status, " of its directory"
    return f"uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}{place}"


def descend(root: L, enter: Callable[[L, str], L | None], visit: Callable[[L], None], cancel: Cancel) -> None:
    """Visits `root` and everything below it, depth first. `visit` fills `subdirectories`; `enter` opens one of them, or
    returns None to leave it out.

    It releases the hold that the caller has on `root`.
    """
    stack = [root]
    try:
        visit(root)
        while stack:
            cancel.check()
            level = stack[-1]
            if level.subdirectories:
                below = enter(level, level.subdirectories.pop())
                if below is None:
                    continue
                stack.append(below)
                if len(stack) > OPEN_LEVELS:
                    stack[-OPEN_LEVELS - 1].park()
                visit(stack[-1])
            else:
                if len(stack) > 1:
                    stack[-2].reopen_from(level)
                stack.pop()
                level.release()
    except BaseException:
        for level in stack:
            level.abandon()
        raise
