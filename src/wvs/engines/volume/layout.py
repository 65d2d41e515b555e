"""The service's own directories on a volume, and the few operations that make and move them; each durable on return.

Every step starts at the volume's root and goes by descriptors. Agents cannot write to these directories; links in them
are refused all the same.
"""

import errno
import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import TreeDir
from wvs.engines.errors import CODE_OF_ERRNO, EngineError
from wvs.engines.kernel import OPEN_DIRECTORY, OPEN_FILE, exists, open_beneath, rename_noreplace
from wvs.engines.paths import (
    LIVE,
    NAME,
    REASON,
    ROOT,
    SWITCH,
    TRASH,
    TREES,
    trashed_path,
    tree_path,
    workspace_path,
)
from wvs.engines.volume.names import checked_tree, checked_workspace, is_tree_name

_NAME_BYTES: Final = 100
_LOOKS: Final = 3
_CACHED_S: Final = 10.0
_CACHED_PAUSE_S: Final = 0.05

OPEN_TO_AGENTS: Final = 0o711
"""Others can pass through to a name that they know, and list nothing."""
CLOSED: Final = 0o700
NAME_MODE: Final = 0o644
"""Agents may read which tree they work in."""


class Retired(Enum):
    """The result of `retire`."""

    MOVED = "moved"
    ALREADY = "already"
    ABSENT = "absent"
    """Neither among the trees nor in the trash: purged before, never made, or removed at once for lack of room."""


class WorkspaceDir:
    """The open directory of one workspace. Methods raise `OSError` for the medium, `EngineError` for the layout."""

    def __init__(self, descriptor: int, path: str, *, caches_names: bool) -> None:
        """`caches_names`: see `mounts`."""
        self.descriptor = descriptor
        self.path = path
        self._caches_names = caches_names

    @contextmanager
    def tree(self, name: str) -> Generator[TreeDir]:
        """The directory around the tree `name`, wherever it is; raises TREE_MISSING.

        The file in it says which tree it is. A directory under `TREES` without that file has its own name: its maker
        was killed before it wrote the file.
        """
        checked_tree(name)
        with ExitStack() as closing:
            # A switch may move the tree from one place to the next between two looks.
            for place, entry in (place for _ in range(_LOOKS) for place in self._places(name)):
                try:
                    tree = closing.enter_context(self.wrapper(place, entry))
                except EngineError:
                    continue
                except OSError:
                    if place == TREES:
                        raise
                    continue
                named = tree_in(tree.descriptor)
                if named == name or (place == TREES and named is None):
                    yield tree
                    return
            raise EngineError(ErrorCode.TREE_MISSING, f"{tree_path(self.path, name)} is missing", retryable=False)

    @contextmanager
    def wrapper(self, place: str, entry: str) -> Generator[TreeDir]:
        """The directory `entry` in `place`, whichever tree it holds; raises TREE_MISSING."""
        with self.open(place) as parent:
            path = self.path if place == "." else f"{self.path}/{place}"
            self._refresh(parent, entry, f"{path}/{entry}")
            with _opened(parent, entry, f"{path}/{entry}") as tree:
                yield tree

    def intend(self, name: str) -> None:
        """Makes the closed directory for a new tree. An existing one is a fatal error: no name is used twice."""
        with self.open(TREES) as trees:
            try:
                os.mkdir(checked_tree(name), CLOSED, dir_fd=trees)
            except FileExistsError as error:
                raise EngineError(
                    ErrorCode.CLONE_FAILED, f"{tree_path(self.path, name)} exists already", retryable=False
                ) from error
            _set_mode(trees, name, CLOSED)
            with _opened(trees, name, tree_path(self.path, name)) as tree:
                name_tree(tree.descriptor, name)
            os.fsync(trees)

    def set_mode(self, name: str, mode: int) -> None:
        """Sets the mode of the directory around a tree: `OPEN_TO_AGENTS` for a live tree, `CLOSED` for a snapshot."""
        with self.tree(name) as tree:
            os.chmod(tree.descriptor, mode)

    def retire(self, name: str) -> Retired:
        """Moves a tree to the trash. Re-entrant.

        Raises `EngineError` if the name is in both places, or is that of a directory that holds another tree.
        """
        checked_tree(name)
        with self.open(TREES) as trees, self.open(TRASH) as trash:
            held = _tree_at(trees, name)
            if held not in (None, name):
                raise EngineError(
                    ErrorCode.REMOVE_FAILED,
                    f"{tree_path(self.path, name)} holds the tree {held}: nothing was moved",
                    "somebody gave it that name; give it the name in the file beside its root, then retry the task",
                    retryable=False,
                )
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
        with self.open(TRASH) as trash:
            if not exists(trash, checked_tree(name)):
                yield None
                return
            with _opened(trash, name, trashed_path(self.path, name)) as tree:
                yield tree

    def drop(self, place: str, name: str) -> None:
        """Removes the emptied directory `name` from `place` and checks that it is gone. Durable."""
        with self.open(place) as directory:
            if exists(directory, name):
                os.rmdir(name, dir_fd=directory)
            if exists(directory, name):
                raise EngineError(ErrorCode.REMOVE_FAILED, f"{self.path}/{place}/{name} is still there")
            os.fsync(directory)

    def names(self, place: str) -> list[str]:
        """All names in `TREES`, `TRASH` or `SWITCH`, also those that WVS did not make."""
        with self.open(place) as directory:
            return sorted(os.listdir(directory))

    def whole_trees(self) -> set[str]:
        """The trees that have a root, by the files with their names, in all places but the trash."""
        return {tree for _ in range(2) for tree, _ in self._held() if tree is not None}

    def misnamed(self) -> list[str]:
        """The names in `TREES` of directories that hold another tree: WVS moves none there."""
        with self.open(TREES) as trees:
            return [entry for entry in sorted(os.listdir(trees)) if _tree_at(trees, entry) not in (None, entry)]

    def _held(self) -> Iterator[tuple[str | None, str]]:
        """Each directory with a root: the tree in it, and its name. A switch may move one during the listing."""
        for place in (TREES, SWITCH):
            with self.open(place) as directory:
                for entry in os.listdir(directory):
                    if place == SWITCH:
                        self._refresh(directory, entry, f"{self.path}/{place}/{entry}")
                    if exists(directory, f"{entry}/{ROOT}"):
                        tree = _tree_at(directory, entry)
                        yield (entry if tree is None and place == TREES else tree), entry
        self._refresh(self.descriptor, LIVE, f"{self.path}/{LIVE}")
        if exists(self.descriptor, f"{LIVE}/{ROOT}"):
            yield _tree_at(self.descriptor, LIVE), LIVE

    def _refresh(self, parent: int, entry: str, path: str) -> None:
        """Waits until the name leads to what is there now. No listing is cached, and the kernel learns from it.

        A rename moves what the kernel has cached along with the name: it would show the wrong tree in a slot.
        """
        until = time.monotonic() + _CACHED_S
        while self._caches_names and not _is_as_listed(parent, entry):
            if time.monotonic() > until:
                raise EngineError(
                    ErrorCode.VOLUME_UNAVAILABLE,
                    f"{path} leads to another directory than the listing shows, for more than {_CACHED_S:g} s",
                    "mount the volume so that names are cached for a few seconds at most (JuiceFS: --entry-cache and "
                    "--dir-entry-cache)",
                )
            time.sleep(_CACHED_PAUSE_S)

    def _places(self, name: str) -> Iterator[tuple[str, str]]:
        # The live directory first: a person may have copied it to `TREES`, and a snapshot has what the path shows.
        yield ".", LIVE
        yield TREES, name
        for slot in self.names(SWITCH):
            yield SWITCH, slot

    @contextmanager
    def open(self, place: str) -> Generator[int]:
        """A descriptor of one of the workspace's own directories, or of the workspace's itself (`.`)."""
        directory = os.dup(self.descriptor) if place == "." else open_beneath(self.descriptor, place, OPEN_DIRECTORY)
        try:
            yield directory
        finally:
            os.close(directory)


def kind_of(directory: int, entry: str) -> str | None:
    """What the entry is, for a person; None if it is missing."""
    try:
        mode = os.stat(entry, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    return "a directory" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a file"


def _is_as_listed(directory: int, entry: str) -> bool:
    """Whether the name leads to the inode that the listing has, or to nothing; what is not listed any more does not."""
    with os.scandir(directory) as entries:
        listed = next((each.inode() for each in entries if each.name == entry), None)
    try:
        return os.stat(entry, dir_fd=directory, follow_symlinks=False).st_ino == listed
    except FileNotFoundError:
        return True


def tree_in(wrapper: int) -> str | None:
    """The tree whose name the file in the open directory has; None without a file, or with something else in it."""
    try:
        name = _read_name(wrapper)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EISDIR, errno.ENXIO):
            return None
        raise
    return name if is_tree_name(name) else None


def _read_name(wrapper: int) -> str:
    try:
        return os.readlink(NAME, dir_fd=wrapper)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    descriptor = os.open(NAME, OPEN_FILE, dir_fd=wrapper)
    try:
        return os.read(descriptor, _NAME_BYTES).decode(errors="replace").strip()
    finally:
        os.close(descriptor)


def name_tree(wrapper: int, name: str) -> None:
    """Writes the name of the tree into the open directory around it. Durable, re-entrant.

    Where the filesystem is full it makes a link with that text instead, which takes no block: a full btrfs can be set
    back to a snapshot.
    """
    try:
        _write_name(wrapper, name)
    except OSError as error:
        if CODE_OF_ERRNO.get(error.errno or 0) is not ErrorCode.VOLUME_FULL:
            raise
        with suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=wrapper)
        os.symlink(name, NAME, dir_fd=wrapper)
    os.fsync(wrapper)


def _write_name(wrapper: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(NAME, flags, NAME_MODE, dir_fd=wrapper)
    try:
        os.write(descriptor, f"{name}\n".encode())
        os.fchmod(descriptor, NAME_MODE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tree_at(directory: int, entry: str) -> str | None:
    try:
        wrapper = open_beneath(directory, entry, OPEN_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        return tree_in(wrapper)
    finally:
        os.close(wrapper)


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
        _ensure(directory, SWITCH, CLOSED)
        os.fsync(directory)
    finally:
        os.close(directory)
    os.fsync(volume)


@contextmanager
def open_workspace(volume: int, workspace: str, volume_path: str, *, caches_names: bool) -> Generator[WorkspaceDir]:
    """The directory of a workspace; raises TREE_MISSING."""
    with _opened(volume, checked_workspace(workspace), workspace_path(volume_path, workspace)) as opened:
        yield WorkspaceDir(opened.descriptor, opened.path, caches_names=caches_names)


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
