"""A volume: the one interface to everything that WVS keeps on a filesystem (design §8).

Its methods block and are thread-safe; executors call them in worker threads. Names of workspaces are typed ids
(`ws_…`), names of trees come from `names.tree_name`; anything else is refused before it becomes a path. Every method
raises `EngineError`.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import (
    Cancel,
    CloneCall,
    CloneResult,
    Engine,
    OnProgress,
    Stamp,
    Totals,
    TreeOwner,
)
from wvs.engines.errors import CODE_OF_ERRNO, EngineError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY
from wvs.engines.paths import ROOT, TRASH, TREES, lock_path, tree_root_path
from wvs.engines.trees.stamps import Manifest
from wvs.engines.volume import layout
from wvs.engines.volume.identity import (
    LogPosition,
    VolumeIdentity,
    identity_lock,
    read_identity,
    touch_lock,
    write_identity,
)
from wvs.engines.volume.layout import Retired, Stranger, WorkspaceDir, make_workspace, open_workspace
from wvs.engines.volume.names import checked_workspace, is_tree_name, is_workspace_name
from wvs.engines.volume.quarantine import quarantine_stranger, quarantine_tree
from wvs.engines.volume.space import Space, read_space, require_space


class Made(msgspec.Struct, frozen=True):
    """What an event says about the tree that it names; the counts are None where the engine reads no files."""

    files: int | None
    bytes: int | None
    sockets: int
    source_stamp: str


class Volume:
    """An open volume, made by `opening.open_volume`.

    It keeps no descriptor between calls, so that the volume can be unmounted and mounted again. Instead each call
    checks that the volume at the path is still this one.
    """

    def __init__(self, path: str, identity: VolumeIdentity, engine: Engine) -> None:
        self.path = path
        self.identity = identity
        self.engine = engine

    def root_path(self, workspace: str, name: str) -> str:
        """The path of one tree's own root."""
        return tree_root_path(self.path, workspace, name)

    def create_workspace(self, workspace: str) -> None:
        """Makes the workspace's directories that are missing. Durable, re-entrant."""
        with self._open(f"making {workspace}") as volume:
            make_workspace(volume, workspace)

    def intend(self, workspace: str, name: str) -> None:
        """Makes the closed directory for a future tree. Durable. An existing one is fatal: no name is used twice."""
        with self._workspace(workspace, "intending a tree") as here:
            here.intend(name)

    def create_root(self, workspace: str, name: str, owner: TreeOwner, mode: int) -> None:
        """Makes an empty root in an intended tree."""
        with self._workspace(workspace, "making a live tree") as here, here.tree(name) as tree:
            self.engine.create(tree, owner, mode)

    def stamp(self, workspace: str, name: str, cancel: Cancel | None = None) -> Stamp:
        """The stamp of a source before or after its clone; `engine.torn` compares the two."""
        with self._workspace(workspace, "stamping a tree") as here, here.tree(name) as tree:
            return self.engine.stamp(tree, cancel or Cancel())

    def measure(self, workspace: str, name: str, cancel: Cancel | None = None) -> Totals:
        """The size of a tree, by a walk; for engines without `counts_files`."""
        with self._workspace(workspace, "measuring a tree") as here, here.tree(name) as tree:
            return Manifest(tree, cancel or Cancel()).totals

    def require_rights(self, workspace: str, name: str, cancel: Cancel | None = None) -> None:
        """Raises `EngineError` if the service lacks a right that a clone of the tree needs; see `Engine`."""
        with self._workspace(workspace, "looking at rights") as here, here.tree(name) as tree:
            self.engine.require_rights(tree, cancel or Cancel())

    def clone(
        self,
        workspace: str,
        source: str,
        target: str,
        *,
        cancel: Cancel | None = None,
        on_progress: OnProgress | None = None,
        totals: Totals | None = None,
        makes_room: bool = False,
    ) -> CloneResult:
        """Clones the root of `source` into the intended `target`, which stays closed to agents.

        With `totals` (from the source's stamp) progress includes totals, and the check for space precedes the clone.
        `makes_room`: the clone replaces a tree that is removed afterwards, so an engine without `needs_space` may make
        it on a full volume. Any other clone there would only pin what fills it.
        After an error the target stays as it is: the caller retires and purges it.
        """
        call = CloneCall(cancel or Cancel(), on_progress, totals, workspace, source, target)
        with (
            self._workspace(workspace, "cloning") as here,
            here.tree(source) as source_tree,
            here.tree(target) as target_tree,
        ):
            if self.engine.needs_space or not makes_room:
                require_space(
                    here.descriptor, self.path, self.engine.space_needed(totals), self.engine.inodes_needed(totals)
                )
            try:
                return self.engine.clone(source_tree, target_tree, call)
            except EngineError as error:
                if error.code is ErrorCode.CLONE_FAILED and error.retryable and self.engine.needs_space:
                    # Not every layer below reports a full filesystem by its errno.
                    require_space(here.descriptor, self.path, 0, 1)
                raise

    def flush(self, workspace: str, name: str) -> None:
        """Makes all writes of this host to the tree visible to a clone, and durable; see `Engine.flush`."""
        with self._workspace(workspace, "flushing") as here, here.tree(name) as tree:
            self.engine.flush(tree)

    def sync(self, workspace: str, name: str) -> None:
        """Makes a finished tree durable. Callers do so before the event that commits the tree."""
        with self._workspace(workspace, "making durable") as here, here.tree(name) as tree:
            self.engine.sync(tree)

    def seal(self, workspace: str, name: str) -> None:
        """Makes a snapshot read-only if the engine can; the directory around it is closed in any case."""
        with self._workspace(workspace, "sealing") as here, here.tree(name) as tree:
            self.engine.seal(tree)

    def admit_agents(self, workspace: str, name: str) -> None:
        """Opens the directory around a live tree for agents (0711). Re-entrant."""
        with self._workspace(workspace, "opening a live tree") as here:
            here.set_mode(name, layout.OPEN_TO_AGENTS)

    def set_link(self, workspace: str, name: str) -> str | None:
        """Makes the link `current` point to a live tree. Atomic, durable, re-entrant.

        Something that WVS did not make and that stands there is moved to quarantine; returns its new path, else None.
        """
        place = None
        with self._open("moving the link") as volume, open_workspace(volume, workspace, self.path) as here:
            if isinstance(here.standing(), Stranger):
                place = f"{self.path}/{quarantine_stranger(volume, here)}"
            here.set_link(name)
        return place

    def standing(self, workspace: str) -> str | Stranger | None:
        """What is at the workspace's path: the tree that the link of WVS points to, something else, or nothing."""
        with self._workspace(workspace, "looking at the workspace's path") as here:
            return here.standing()

    def linked_tree(self, workspace: str) -> str | None:
        """The tree that `current` points to; None if there is no link, or something that WVS did not make."""
        with self._workspace(workspace, "reading the link") as here:
            return here.linked_tree()

    def retire(self, workspace: str, name: str) -> Retired:
        """Moves a tree to the trash. Durable, re-entrant. Raises `EngineError` if the name is in both places.

        A workspace without a directory has no tree: a person deleted it, and the tree is absent.
        A filesystem may be so full that a rename finds no room (btrfs keeps a reserve for removals, not for renames).
        Then the tree is removed where it is: a retired tree is not used again, and its removal makes room.
        """
        if not self.has_workspace(workspace):
            return Retired.ABSENT
        with self._workspace(workspace, "retiring a tree", ErrorCode.REMOVE_FAILED) as here:
            try:
                return here.retire(name)
            except OSError as error:
                if CODE_OF_ERRNO.get(error.errno or 0) is not ErrorCode.VOLUME_FULL:
                    raise
            with here.tree(name) as tree:
                self.engine.remove(tree, Cancel())
            here.drop(TREES, name)
            return Retired.ABSENT

    def purge(self, workspace: str, name: str, cancel: Cancel | None = None) -> None:
        """Removes a retired tree and checks that it is gone. Durable, re-entrant; an absent tree is no error."""
        if not self.has_workspace(workspace):
            return
        with self._workspace(workspace, "purging a tree", ErrorCode.REMOVE_FAILED) as here:
            with here.trashed(name) as tree:
                if tree is not None:
                    with layout.reason_left(tree):
                        self.engine.remove(tree, cancel or Cancel())
            here.drop(TRASH, name)

    def why_it_stays(self, workspace: str, name: str) -> str:
        """Why the last purge of a tree in the trash failed, and the command that helps; empty if none has failed."""
        with self._workspace(workspace, "reading the trash") as here, here.trashed(name) as tree:
            return "" if tree is None else layout.read_reason(tree)

    def quarantine(self, workspace: str, name: str) -> str:
        """Moves a directory that no task intended out of `trees/`, whatever its name; returns its new path. Durable."""
        with self._open("quarantining") as volume, open_workspace(volume, workspace, self.path) as here:
            return f"{self.path}/{quarantine_tree(volume, here, name)}"

    def has_tree(self, workspace: str, name: str) -> bool:
        """Whether the tree exists and has a root."""
        try:
            with self._workspace(workspace, "looking for a tree") as here, here.tree(name) as tree:
                return layout.exists(tree.descriptor, ROOT)
        except EngineError as error:
            if error.code is ErrorCode.TREE_MISSING:
                return False
            raise

    def whole_trees(self, workspace: str) -> set[str]:
        """The names in `trees/` that have a root: one call, where `has_tree` would take one for each tree."""
        with self._workspace(workspace, "looking for trees") as here:
            return here.whole_trees()

    def differs(self, workspace: str, name: str, made: Made, cancel: Cancel | None = None) -> str | None:
        """Why the tree is not the one that was made; None if it is, as far as its engine and its counts can show."""
        with self._workspace(workspace, "comparing a tree") as here, here.tree(name) as tree:
            recognised = self.engine.recognises(tree, made.source_stamp)
            if recognised is not None:
                return None if recognised else f"its root is not one that the engine {self.engine.name} makes"
            if made.files is None:
                return "its content has changed, or it was copied, and its event has no counts to compare it with"
            found = Manifest(tree, cancel or Cancel()).totals
        if found.bytes == made.bytes and made.files - made.sockets <= found.files <= made.files:
            return None
        return f"it has {found.files} files and {found.bytes} bytes, its event says {made.files} and {made.bytes}"

    def take_back(self, workspace: str, name: str) -> None:
        """Makes a tree that is there again what a snapshot has to be: closed, durable and sealed. Re-entrant."""
        with self._workspace(workspace, "taking a tree back") as here, here.tree(name) as tree:
            here.set_mode(name, layout.CLOSED)
            self.engine.sync(tree)
            self.engine.seal(tree)

    def has_workspace(self, workspace: str) -> bool:
        """Whether the workspace has a directory; if not, that is durable."""
        with self._open("looking for a workspace") as volume:
            if layout.exists(volume, checked_workspace(workspace)):
                return True
            os.fsync(volume)
            return False

    def workspaces(self) -> list[str]:
        """The workspaces that have a directory."""
        with self._open("listing workspaces") as volume:
            return sorted(filter(is_workspace_name, os.listdir(volume)))

    def trees(self, workspace: str) -> list[str]:
        """All names in `trees/`, also those that WVS cannot have made (see `names.is_tree_name`)."""
        with self._workspace(workspace, "listing trees") as here:
            return here.names(TREES)

    def trash(self, workspace: str) -> list[str]:
        """All names in `trash/`, likewise."""
        with self._workspace(workspace, "listing the trash") as here:
            return here.names(TRASH)

    def trash_with_reasons(self, workspace: str) -> dict[str, str]:
        """The trees in `trash/`, each with `why_it_stays`."""
        return {name: self.why_it_stays(workspace, name) for name in self.trash(workspace) if is_tree_name(name)}

    def space(self) -> Space:
        """Room on the volume."""
        with self._open("measuring space") as volume:
            return read_space(volume)

    def require_working(self) -> None:
        """Raises `EngineError` with VOLUME_UNAVAILABLE if no operation on the volume can succeed now.

        It writes and syncs a byte: a mount whose storage is gone may still answer reads from its cache.
        """
        with self._open("checking", ErrorCode.VOLUME_UNAVAILABLE) as volume:
            touch_lock(volume)

    def bind(self, system_id: str) -> None:
        """Binds the volume to the Postgres cluster of its log. Raises `EngineError` if it belongs to another one."""
        with self._open("binding") as volume:
            if self._is_bound(volume, system_id):
                return
            with self._locked(volume):
                if not self._is_bound(volume, system_id):
                    write_identity(volume, msgspec.structs.replace(self._reread(volume), system_id=system_id))

    def rebind(self, system_id: str) -> None:
        """As `bind`, whichever cluster the volume belonged to before: a person decided it."""
        with self._open("binding") as volume, self._locked(volume):
            write_identity(volume, msgspec.structs.replace(self._reread(volume), system_id=system_id))

    @contextmanager
    def _locked(self, volume: int) -> Generator[None]:
        with identity_lock(volume) as held:
            if not held:
                raise EngineError(
                    ErrorCode.VOLUME_UNAVAILABLE,
                    f"another process holds the lock of the volume {self.path} and does not release it",
                    f"find the process (fuser -v {lock_path(self.path)}), end it, and start again",
                )
            yield

    def _is_bound(self, volume: int, system_id: str) -> bool:
        identity = self._reread(volume)
        if identity.system_id not in (None, system_id):
            raise EngineError(
                ErrorCode.VOLUME_UNAVAILABLE,
                f"the volume {self.path} belongs to the database cluster {identity.system_id}, not {system_id}",
                "set WVS_DATABASE_URL to the volume's own database; if that moved to a new cluster (pg_upgrade, a "
                "restored dump), stop the old cluster and all executors and run `wvs volume rebind`. "
                "Read: wvs runbook new-cluster",
                retryable=False,
            )
        return identity.system_id is not None

    def seen(self) -> LogPosition | None:
        """The latest log position recorded on the volume. If Postgres has not reached it, the database was restored."""
        with self._open("reading the position") as volume:
            return self._reread(volume).seen

    def seen_event(self) -> tuple[LogPosition, str | None] | None:
        """`seen` with the hash (hex) of the event there. If Postgres has another hash, it has another log."""
        with self._open("reading the position") as volume:
            identity = self._reread(volume)
            return None if identity.seen is None else (identity.seen, identity.seen_hash)

    def record_seen(self, position: LogPosition, event_hash: str | None = None) -> None:
        """Records a log position and the hash of its event. Durable. An older position changes nothing."""
        with self._open("recording the position") as volume, identity_lock(volume):
            identity = self._reread(volume)
            if identity.seen is None or identity.seen < position:
                write_identity(volume, msgspec.structs.replace(identity, seen=position, seen_hash=event_hash))

    def _reread(self, volume: int) -> VolumeIdentity:
        identity = read_identity(volume)
        if identity is None:
            raise _missing(self.path, self.identity, None)
        return identity

    @contextmanager
    def _open(self, doing: str, otherwise: ErrorCode = ErrorCode.CLONE_FAILED) -> Generator[int]:
        descriptor = -1
        try:
            descriptor = os.open(self.path, OPEN_DIRECTORY)
            identity = read_identity(descriptor)
            if identity is None or identity.id != self.identity.id:
                raise _missing(self.path, self.identity, identity)
            yield descriptor
        except FileNotFoundError as error:
            if descriptor < 0:
                raise _missing(self.path, self.identity, None) from error
            raise from_os_error(error, otherwise, f"{doing} on {self.path}") from error
        except OSError as error:
            raise from_os_error(error, otherwise, f"{doing} on {self.path}") from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    @contextmanager
    def _workspace(
        self, workspace: str, doing: str, otherwise: ErrorCode = ErrorCode.CLONE_FAILED
    ) -> Generator[WorkspaceDir]:
        with self._open(doing, otherwise) as volume, open_workspace(volume, workspace, self.path) as here:
            yield here


def _missing(path: str, expected: VolumeIdentity, present: VolumeIdentity | None) -> EngineError:
    content = f"the volume {present.id}" if present else "no volume"
    return EngineError(
        ErrorCode.VOLUME_UNAVAILABLE, f"{path} holds {content}, expected {expected.id}", "mount the volume's filesystem"
    )
