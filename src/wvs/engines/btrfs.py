"""The engine `btrfs`: a tree is a subvolume, a clone is a snapshot. Its time does not depend on the tree's size."""

import errno
import os
import secrets
import shlex
from collections.abc import Generator
from contextlib import contextmanager, suppress

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel, CloneCall, CloneResult, Engine, Probe, Stamp, Totals, TreeDir, TreeOwner
from wvs.engines.errors import CODE_OF_ERRNO, EngineError, from_os_error
from wvs.engines.files import set_root
from wvs.engines.kernel import OPEN_DIRECTORY, open_unseen, sync_filesystem
from wvs.engines.mounts import mount_of
from wvs.engines.paths import ROOT
from wvs.engines.subvolumes import (
    commit_transaction,
    create_snapshot,
    create_subvolume,
    destroy_subvolume,
    first_nested,
    is_subvolume,
    set_read_only,
    subvolume_info,
)
from wvs.engines.swaps import swap_file_in
from wvs.engines.trees.readability import owns_everything
from wvs.engines.trees.removal import remove_content


class BtrfsEngine(Engine):
    """Clones by the snapshot ioctl."""

    name = "btrfs"
    counts_files = False
    needs_space = False

    def probe(self, directory: TreeDir) -> Probe:
        """Makes a subvolume and a snapshot and removes both: without root, removal may be forbidden."""
        filesystem = mount_of(directory.descriptor).filesystem
        if filesystem != "btrfs":
            return Probe(self.name, fits=False, why=f"the filesystem is {filesystem}, not btrfs")
        try:
            _try_snapshot(directory.descriptor)
        except OSError as error:
            if error.errno in CODE_OF_ERRNO:
                raise from_os_error(error, ErrorCode.VOLUME_UNAVAILABLE, "trying btrfs") from error
            hint = "run as root, or mount with user_subvol_rm_allowed"
            why = f"subvolumes cannot be made and removed: {error.strerror} ({hint})"
            return Probe(self.name, fits=False, why=why)
        return Probe(self.name, fits=True, why="subvolumes can be made, snapshotted and removed")

    def create(self, tree: TreeDir, owner: TreeOwner, mode: int) -> None:
        """Makes the root as an empty subvolume."""
        with _failing(ErrorCode.CLONE_FAILED, f"making {tree.root_path}"):
            create_subvolume(tree.descriptor, ROOT)
            set_root(tree, owner, mode)

    def _clone(self, source: TreeDir, target: TreeDir, call: CloneCall) -> CloneResult:
        with _source(source) as subvolume:
            _refuse_nested(source, subvolume)
            try:
                create_snapshot(subvolume, target.descriptor, ROOT)
            except OSError as error:
                raise _refused_snapshot(error, source) from error
        with _root(target) as snapshot:
            info = subvolume_info(snapshot)
        # The snapshot is from a later transaction, but the latest change to its content is from one of the source.
        clone = Stamp(self.name, f"{info.id}:{info.changed_in}", content=str(info.changed_in))
        return CloneResult(None, None, 0, 0.0, stamp=clone)

    def require_rights(self, source: TreeDir, cancel: Cancel) -> None:
        """The service has to own the subvolume. The kernel copies what is in it, whoever owns that and may read it."""
        cancel.check()
        with _failing(ErrorCode.CLONE_FAILED, f"reading {source.root_path}"):
            owner = os.stat(ROOT, dir_fd=source.descriptor, follow_symlinks=False).st_uid
        if owner != os.geteuid() and not owns_everything():
            raise EngineError(
                ErrorCode.CLONE_FAILED,
                f"{source.root_path} belongs to uid {owner}, and the service runs as uid {os.geteuid()}: "
                "the kernel lets a user without root's rights snapshot only subvolumes of its own",
                f"as root: chown {os.geteuid()} {shlex.quote(source.root_path)}, or run the executor as root; "
                "then retry the task",
                retryable=False,
            )

    def stamp(self, tree: TreeDir, cancel: Cancel) -> Stamp:
        """Writes everything back and returns the transaction id of the tree's latest change.

        `syncfs` writes all data and ends the running transaction: without it a write before the stamp and one after it
        could carry the same transaction id.
        """
        cancel.check()
        with _failing(ErrorCode.VOLUME_UNAVAILABLE, f"settling {tree.path}"):
            sync_filesystem(tree.descriptor)
        cancel.check()
        with _failing(ErrorCode.CLONE_FAILED, f"reading {tree.root_path}"), _source(tree) as subvolume:
            info = subvolume_info(subvolume)
        return Stamp(self.name, f"{info.id}:{info.changed_in}", content=str(info.changed_in))

    def recognises(self, tree: TreeDir, source_stamp: str) -> bool | None:
        """A directory that is no subvolume cannot be cloned. A subvolume without a later change is the clone."""
        with _failing(ErrorCode.CLONE_FAILED, f"reading {tree.root_path}"):
            if not is_subvolume(tree.descriptor, ROOT):
                return False
            with _root(tree) as subvolume:
                unchanged = str(subvolume_info(subvolume).changed_in) == source_stamp.rpartition(":")[2]
        return True if unchanged else None

    def flush(self, tree: TreeDir) -> None:
        """`syncfs`."""
        with _failing(ErrorCode.VOLUME_UNAVAILABLE, f"flushing {tree.path}"):
            sync_filesystem(tree.descriptor)

    def sync(self, tree: TreeDir) -> None:
        """Ends the running transaction. The kernel wrote the snapshot's data when it made the snapshot."""
        with _failing(ErrorCode.VOLUME_UNAVAILABLE, f"making durable {tree.path}"):
            commit_transaction(tree.descriptor)

    def seal(self, tree: TreeDir) -> None:
        """Makes the subvolume read-only, also for root."""
        with _failing(ErrorCode.CLONE_FAILED, f"sealing {tree.root_path}"), _root(tree) as subvolume:
            set_read_only(subvolume, read_only=True)

    def remove(self, tree: TreeDir, cancel: Cancel) -> None:
        """Removes the subvolume as a whole; entry by entry only if agents nested other subvolumes in it."""
        with _failing(ErrorCode.REMOVE_FAILED, f"removing {tree.root_path}"):
            _destroy_root(tree)
        remove_content(tree, self.workers, cancel)

    def space_needed(self, totals: Totals | None) -> int:
        """0: a snapshot takes a few blocks of metadata, which btrfs keeps apart from its free space."""
        return 0

    def inodes_needed(self, totals: Totals | None) -> int:
        """0: a snapshot shares the inodes of its source."""
        return 0


def _try_snapshot(directory: int) -> None:
    names = [f"probe-{secrets.token_hex(8)}" for _ in range(2)]
    made: list[str] = []
    try:
        create_subvolume(directory, names[0])
        made.append(names[0])
        subvolume = os.open(names[0], OPEN_DIRECTORY, dir_fd=directory)
        try:
            create_snapshot(subvolume, directory, names[1])
            made.append(names[1])
            subvolume_info(subvolume)
        finally:
            os.close(subvolume)
    finally:
        for name in made:
            destroy_subvolume(directory, name)


def _refuse_nested(source: TreeDir, subvolume: int) -> None:
    # A snapshot has an empty directory in place of each nested subvolume: content would be lost without an error.
    nested = first_nested(subvolume)
    if nested is not None:
        raise EngineError(
            ErrorCode.CLONE_FAILED,
            f"{nested!a} in {source.root_path} is a btrfs subvolume of its own, which a snapshot leaves out",
            "replace it with a directory (cp -a --reflink, then btrfs subvolume delete)",
            retryable=False,
        )


def _refused_snapshot(error: OSError, source: TreeDir) -> EngineError:
    # The ioctl names no file; only a swap file makes the kernel say "text file busy" here.
    swap_file = swap_file_in(source.root_path) if error.errno == errno.ETXTBSY else None
    what = source.root_path if swap_file is None else f"{swap_file!a} in {source.root_path}"
    return from_os_error(error, ErrorCode.CLONE_FAILED, f"cloning {what}")


def _destroy_root(tree: TreeDir) -> None:
    try:
        if not is_subvolume(tree.descriptor, ROOT):
            return
    except FileNotFoundError:
        return
    try:
        destroy_subvolume(tree.descriptor, ROOT)
    except OSError as error:
        # It holds nested subvolumes or, without root, it is sealed: the rest is removed entry by entry.
        if error.errno not in (errno.ENOTEMPTY, errno.EPERM, errno.EACCES, errno.EROFS):
            raise
        with _root(tree) as subvolume:
            set_read_only(subvolume, read_only=False)
        # Not sealed any more, a user may destroy its own subvolume, with entries in it that it could not remove.
        with suppress(OSError):
            destroy_subvolume(tree.descriptor, ROOT)


@contextmanager
def _source(tree: TreeDir) -> Generator[int]:
    """The root as a subvolume. The ioctls would take the subvolume around a plain directory, with all other trees."""
    with _root(tree) as root:
        if not is_subvolume(tree.descriptor, ROOT):
            raise EngineError(
                ErrorCode.CLONE_FAILED,
                f"{tree.root_path} is a plain directory, not the btrfs subvolume that WVS made: somebody replaced it",
                f"put its content into a subvolume: cd {tree.path} && btrfs subvolume create new && "
                "cp -a --reflink=auto root/. new/ && mv root old && mv new root; then retry the task. Or recreate the "
                "live tree from a snapshot: wvsctl current set WORKSPACE SNAPSHOT --reset",
                retryable=False,
            )
        yield root


@contextmanager
def _root(tree: TreeDir) -> Generator[int]:
    try:
        descriptor = open_unseen(tree.descriptor, ROOT, OPEN_DIRECTORY)
    except FileNotFoundError as error:
        raise EngineError(ErrorCode.TREE_MISSING, f"{tree.root_path} is missing", retryable=False) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _failing(otherwise: ErrorCode, doing: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, otherwise, doing) from error
