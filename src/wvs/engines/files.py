"""The base of the engines that clone file by file."""

import os
import secrets
from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar

from wvs.domain.errors import ErrorCode
from wvs.engines.base import (
    Cancel,
    CloneCall,
    CloneResult,
    Engine,
    Probe,
    Stamp,
    TreeDir,
    TreeOwner,
)
from wvs.engines.errors import CODE_OF_ERRNO, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, sync_filesystem
from wvs.engines.mounts import mount_of
from wvs.engines.paths import ROOT
from wvs.engines.trees.fidelity import drop_inherited_acls
from wvs.engines.trees.filling import Filling
from wvs.engines.trees.readability import require_readable
from wvs.engines.trees.removal import remove_content
from wvs.engines.trees.stamps import manifest_stamp, settle_clock
from wvs.engines.trees.treecopy import TreeCopy


class FileEngine(Engine):
    """An engine that walks the tree. A subclass decides how a new file gets its content."""

    filling: ClassVar[Filling]
    root_entries = frozenset({"lost+found"})
    serial_removal_on: ClassVar[frozenset[str]] = frozenset({"xfs", "btrfs"})
    """Filesystems on which one process removes a tree. Their kernels free inodes in the background on the other cores
    already, so that a second process only adds contention (20,000 files on XFS: 0.6 s with one process, 0.9 to 1.6 s
    with two; on ext4 0.5 s with one, 0.4 s with two)."""
    fine_clocks_on: ClassVar[frozenset[str]] = frozenset({"ext4", "xfs", "btrfs", "tmpfs"})
    """Filesystems with fine timestamps since Linux 6.13 (FS_MGTIME)."""

    @abstractmethod
    def trial(self, directory: TreeDir) -> str:
        """Tries the engine on scratch files. Returns a sentence on what works; raises `OSError` if it does not."""

    def probe(self, directory: TreeDir) -> Probe:
        """Runs `trial`."""
        try:
            return Probe(self.name, fits=True, why=self.trial(directory))
        except OSError as error:
            if error.errno in CODE_OF_ERRNO:
                raise from_os_error(error, ErrorCode.VOLUME_UNAVAILABLE, f"trying {self.name}") from error
            return Probe(self.name, fits=False, why=f"{self.name} does not work here: {error.strerror}")

    def create(self, tree: TreeDir, owner: TreeOwner, mode: int) -> None:
        """Makes an empty directory."""
        create_directory_root(tree, owner, mode)

    def _clone(self, source: TreeDir, target: TreeDir, call: CloneCall) -> CloneResult:
        return TreeCopy(self.filling, self.workers, call, skip_unreadable=self.skip_unreadable).run(source, target)

    def require_rights(self, source: TreeDir, cancel: Cancel) -> None:
        """Every file has to be readable, unless it may be left out."""
        if not self.skip_unreadable:
            require_readable(source, cancel)

    def stamp(self, tree: TreeDir, cancel: Cancel) -> Stamp:
        """The manifest stamp, by one walk, after the clock has moved on."""
        settle_clock(fine=mount_of(tree.descriptor).filesystem in self.fine_clocks_on)
        return manifest_stamp(self.name, tree, cancel, skip_unreadable=self.skip_unreadable)

    def flush(self, tree: TreeDir) -> None:
        """`syncfs`. It suffices: a clone reads the page cache that the writers write to."""
        sync_tree(tree, "flushing")

    def sync(self, tree: TreeDir) -> None:
        """`syncfs`: one wait for 20,000 files, where an fsync of each would wait 20,000 times."""
        sync_tree(tree, "making durable")

    def seal(self, tree: TreeDir) -> None:
        """Nothing: the closed directory around the tree keeps agents out."""

    def remove(self, tree: TreeDir, cancel: Cancel) -> None:
        """Removes entry by entry."""
        serial = mount_of(tree.descriptor).filesystem in self.serial_removal_on
        remove_content(tree, 1 if serial else self.workers, cancel)


def create_directory_root(tree: TreeDir, owner: TreeOwner, mode: int) -> None:
    """Makes the root as an empty directory. Raises `EngineError`."""
    try:
        os.mkdir(ROOT, 0o700, dir_fd=tree.descriptor)
        set_root(tree, owner, mode)
    except OSError as error:
        raise from_os_error(error, ErrorCode.CLONE_FAILED, f"making {tree.root_path}") from error


def sync_tree(tree: TreeDir, doing: str) -> None:
    """`syncfs`. Raises `EngineError`."""
    try:
        sync_filesystem(tree.descriptor)
    except OSError as error:
        raise from_os_error(error, ErrorCode.VOLUME_UNAVAILABLE, f"{doing} {tree.path}") from error


def set_root(tree: TreeDir, owner: TreeOwner, mode: int) -> None:
    """Sets owner and mode of the new root inside `tree`. Raises `OSError`."""
    root = os.open(ROOT, OPEN_DIRECTORY, dir_fd=tree.descriptor)
    try:
        drop_inherited_acls(root)
        if (os.fstat(root).st_uid, os.fstat(root).st_gid) != (owner.uid, owner.gid):
            os.chown(root, owner.uid, owner.gid)
        os.chmod(root, mode)
    finally:
        os.close(root)


@contextmanager
def scratch_file(directory: TreeDir) -> Generator[tuple[int, str]]:
    """A new empty file in `directory`, open for writing, and its name. The end of the block removes it."""
    name = f"probe-{secrets.token_hex(8)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory.descriptor)
    try:
        yield descriptor, name
    finally:
        os.close(descriptor)
        os.unlink(name, dir_fd=directory.descriptor)
