"""The service's own directories on a volume, and the few operations that make and move them; each durable on return.

Every step starts at the volume's root and goes by descriptors. Agents cannot write to these directories; links in them
are refused all the same.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Final

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import TreeDir
from wvs.engines.errors import EngineError
from wvs.engines.kernel import OPEN_DIRECTORY, OPEN_FILE, exists, open_beneath, rename_noreplace
from wvs.engines.paths import (
    CURRENT,
    NEW_LINK,
    REASON,
    ROOT,
    TRASH,
    TREES,
    link_target,
    trashed_path,
    tree_of_link,
    tree_path,
    workspace_path,
)
from wvs.engines.volume.names import checked_tree, checked_workspace, is_tree_name

_MOST_RACES: Final = 100

OPEN_TO_AGENTS: Final = 0o711
"""Others can pass through to a name that they know, and list nothing."""
CLOSED: Final = 0o700


class Retired(Enum):
    """The result of `retire`."""

    MOVED = "moved"
    ALREADY = "already"
    ABSENT = "absent"
    """Neither among the trees nor in the trash: purged before, never made, or removed at once for lack of room."""


class Stranger(msgspec.Struct, frozen=True):
    """Something at a workspace's path that WVS did not make; `kind` describes it for a person."""

    kind: str


class WorkspaceDir:
    """The open directory of one workspace. Methods raise `OSError` for the medium, `EngineError` for the layout."""

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path

    @contextmanager
    def tree(self, name: str) -> Generator[TreeDir]:
        """The directory around the tree `name`; raises TREE_MISSING."""
        with self._open(TREES) as trees, _opened(trees, checked_tree(name), tree_path(self.path, name)) as tree:
            yield tree

    def intend(self, name: str) -> None:
        """Makes the closed directory for a new tree. An existing one is a fatal error: no name is used twice."""
        with self._open(TREES) as trees:
            try:
                os.mkdir(checked_tree(name), CLOSED, dir_fd=trees)
            except FileExistsError as error:
                raise EngineError(
                    ErrorCode.CLONE_FAILED, f"{tree_path(self.path, name)} exists already", retryable=False
                ) from error
            _set_mode(trees, name, CLOSED)
            os.fsync(trees)

    def set_mode(self, name: str, mode: int) -> None:
        """Sets the mode of the directory around a tree: `OPEN_TO_AGENTS` for a live tree, `CLOSED` for a snapshot."""
        with self._open(TREES) as trees:
            _set_mode(trees, checked_tree(name), mode)

    def retire(self, name: str) -> Retired:
        """Moves a tree to the trash. Re-entrant. Raises `EngineError` if the name is in both places."""
        checked_tree(name)
        with self._open(TREES) as trees, self._open(TRASH) as trash:
            try:
                rename_noreplace(trees, name, trash, name)
            except FileNotFoundError:
                return Retired.ALREADY if exists(trash, name) else Retired.ABSENT
            except FileExistsError as error:
                raise EngineError(
                    ErrorCode.REMOVE_FAILED, f"{self.path} has {name} among its trees and in its trash", retryable=False
                ) from error
            finally:
                os.fsync(trash)
                os.fsync(trees)
        return Retired.MOVED

    @contextmanager
    def trashed(self, name: str) -> Generator[TreeDir | None]:
        """The directory `name` in the trash; None if it is absent."""
        with self._open(TRASH) as trash:
            if not exists(trash, checked_tree(name)):
                yield None
                return
            with _opened(trash, name, trashed_path(self.path, name)) as tree:
                yield tree

    def drop(self, place: str, name: str) -> None:
        """Removes the emptied directory `name` from `TRASH` or `TREES` and checks that it is gone. Durable."""
        with self._open(place) as directory:
            if exists(directory, checked_tree(name)):
                os.rmdir(name, dir_fd=directory)
            if exists(directory, name):
                raise EngineError(ErrorCode.REMOVE_FAILED, f"{self.path}/{place}/{name} is still there")
            os.fsync(directory)

    def set_link(self, name: str) -> None:
        """Makes `current` point to the live tree `name`, by one rename.

        Several executors may do so at once. They share one temporary name, so that a crash leaves at most one link
        behind: each may remove or rename the link of another. A caller that must know calls `linked_tree` afterwards.
        Raises PATH_REPLACED if `current` is not a link of WVS: a rename would delete it.
        """
        target = link_target(checked_tree(name))
        for _ in range(_MOST_RACES):
            standing = self.standing()
            if isinstance(standing, Stranger):
                detail = f"{self.path}/{CURRENT} is {standing.kind}, not the link of WVS."
                raise EngineError(ErrorCode.PATH_REPLACED, detail)
            with suppress(FileNotFoundError):
                os.unlink(NEW_LINK, dir_fd=self.descriptor)
            try:
                os.symlink(target, NEW_LINK, dir_fd=self.descriptor)
                if standing is None:
                    rename_noreplace(self.descriptor, NEW_LINK, self.descriptor, CURRENT)
                else:
                    os.rename(NEW_LINK, CURRENT, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
            except (FileExistsError, FileNotFoundError):
                continue
            os.fsync(self.descriptor)
            return
        raise EngineError(
            ErrorCode.VOLUME_UNAVAILABLE,
            f"{self.path}/{CURRENT} was not moved: other executors moved it {_MOST_RACES} times",
        )

    def standing(self) -> str | Stranger | None:
        """What is at the workspace's path: the tree that the link of WVS points to, something else, or nothing."""
        try:
            target = os.readlink(CURRENT, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            mode = os.stat(CURRENT, dir_fd=self.descriptor, follow_symlinks=False).st_mode
            return Stranger("a directory" if stat.S_ISDIR(mode) else "a file")
        tree = tree_of_link(target)
        return tree if tree is not None and is_tree_name(tree) else Stranger(f"a link to {target[:200]!r}")

    def linked_tree(self) -> str | None:
        """The tree that `current` points to; None if there is no link, or something that WVS did not make."""
        standing = self.standing()
        return None if isinstance(standing, Stranger) else standing

    def names(self, place: str) -> list[str]:
        """All names in `TREES` or `TRASH`, also those that WVS did not make."""
        with self._open(place) as directory:
            return sorted(os.listdir(directory))

    def whole_trees(self) -> set[str]:
        """The names in `TREES` that have a root."""
        with self._open(TREES) as directory:
            return {name for name in os.listdir(directory) if exists(directory, f"{name}/{ROOT}")}

    @contextmanager
    def _open(self, place: str) -> Generator[int]:
        directory = open_beneath(self.descriptor, place, OPEN_DIRECTORY)
        try:
            yield directory
        finally:
            os.close(directory)


@contextmanager
def reason_left(tree: TreeDir) -> Generator[None]:
    """Leaves the reason beside the root of a tree that could not be removed: nobody may be waiting for the error."""
    try:
        yield
    except EngineError as error:
        if error.code is ErrorCode.REMOVE_FAILED:
            # On a full filesystem there may be no room for it; the error itself is raised in any case.
            with suppress(OSError):
                _write_reason(tree, f"{error.detail}. {error.hint}")
        raise


def read_reason(tree: TreeDir) -> str:
    """What `reason_left` wrote; empty if it wrote nothing."""
    try:
        reason = os.open(REASON, OPEN_FILE, dir_fd=tree.descriptor)
    except FileNotFoundError:
        return ""
    with open(reason, encoding="utf-8", errors="replace") as file:
        return file.read()


def _write_reason(tree: TreeDir, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(REASON, flags, 0o600, dir_fd=tree.descriptor), "w", encoding="utf-8") as file:
        file.write(text)


def make_workspace(volume: int, workspace: str) -> None:
    """Makes the directories of a workspace that are missing."""
    checked_workspace(workspace)
    _ensure(volume, workspace, OPEN_TO_AGENTS)
    directory = open_beneath(volume, workspace, OPEN_DIRECTORY)
    try:
        _ensure(directory, TREES, OPEN_TO_AGENTS)
        _ensure(directory, TRASH, CLOSED)
        os.fsync(directory)
    finally:
        os.close(directory)
    os.fsync(volume)


@contextmanager
def open_workspace(volume: int, workspace: str, volume_path: str) -> Generator[WorkspaceDir]:
    """The directory of a workspace; raises TREE_MISSING."""
    with _opened(volume, checked_workspace(workspace), workspace_path(volume_path, workspace)) as opened:
        yield WorkspaceDir(opened.descriptor, opened.path)


@contextmanager
def _opened(parent: int, name: str, path: str) -> Generator[TreeDir]:
    try:
        descriptor = open_beneath(parent, name, OPEN_DIRECTORY)
    except FileNotFoundError as error:
        raise EngineError(ErrorCode.TREE_MISSING, f"{path} is missing", retryable=False) from error
    try:
        yield TreeDir(descriptor, path)
    finally:
        os.close(descriptor)


def _ensure(parent: int, name: str, mode: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
    _set_mode(parent, name, mode)


def _set_mode(parent: int, name: str, mode: int) -> None:
    # mkdir does not suffice: the umask and a default ACL of the parent directory change the mode that it is given.
    directory = open_beneath(parent, name, OPEN_DIRECTORY)
    try:
        if stat.S_IMODE(os.fstat(directory).st_mode) != mode:
            os.chmod(directory, mode)
    finally:
        os.close(directory)
