"""A volume: the one interface to everything that WVS keeps on a filesystem (design §8).

Its methods block and are thread-safe; executors call them in worker threads. Names of workspaces are typed ids
(`ws_…`), names of trees come from `names.tree_name`; anything else is refused before it becomes a path. Every method
raises `EngineError`.
"""

import os

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import (
    Cancel,
    CloneCall,
    CloneResult,
    OnProgress,
    Stamp,
    Totals,
    TreeDir,
    TreeOwner,
)
from wvs.engines.errors import CODE_OF_ERRNO, EngineError
from wvs.engines.paths import CURRENT, LIVE, ROOT, SWITCH, TRASH, TREES, live_root_path
from wvs.engines.trees.stamps import Manifest
from wvs.engines.volume import layout, switching
from wvs.engines.volume.bound import BoundVolume
from wvs.engines.volume.layout import Retired, WorkspaceDir, make_workspace
from wvs.engines.volume.names import checked_workspace, is_tree_name, is_workspace_name
from wvs.engines.volume.quarantine import quarantine_entry, quarantine_tree
from wvs.engines.volume.space import require_space
from wvs.engines.volume.switching import Held, Stranger


class Made(msgspec.Struct, frozen=True):
    """What an event says about the tree that it names; the counts are None where the engine reads no files."""

    files: int | None
    bytes: int | None
    sockets: int
    source_stamp: str


class Volume(BoundVolume):
    """An open volume, made by `opening.open_volume`: its workspaces and their trees."""

    def live_path(self, workspace: str) -> str:
        """The path of the workspace's live tree."""
        return live_root_path(self.path, workspace)

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

    def standing(self, workspace: str) -> str | Stranger | None:
        """The tree at the workspace's path; a stranger there; None if it is not complete, or a switch has not ended."""
        with self._workspace(workspace, "looking at the workspace's path") as here:
            return switching.standing(here)

    def sync_path(self, workspace: str) -> None:
        """Makes what stands at the workspace's path durable, whoever brought it there. Raises `EngineError`."""
        with self._workspace(workspace, "syncing the workspace's path") as here:
            os.fsync(here.descriptor)

    def live_tree(self, workspace: str) -> str | None:
        """The tree in the workspace's live directory, by the file with its name; None if it has none."""
        with self._workspace(workspace, "looking at the live tree") as here:
            live = switching.live_tree(here)
            return None if isinstance(live, Stranger) else live

    def slots(self, workspace: str) -> list[str]:
        """The slots that a switch has filled and not emptied."""
        with self._workspace(workspace, "looking for switches") as here:
            return here.names(SWITCH)

    def take(self, workspace: str, place: str, entry: str) -> Held | None:
        """Moves a tree (`TREES`) or what is in another slot (`SWITCH`) to a slot of the caller's; None if absent."""
        with self._workspace(workspace, "taking a tree") as here:
            return switching.take(here, place, entry)

    def bring(self, workspace: str, slot: str) -> Held | None:
        """Exchanges the caller's slot with the live directory. Returns what the slot holds then; None if nothing."""
        with self._workspace(workspace, "exchanging the live tree") as here:
            switching.bring(here, slot)
            return switching.look_at(here, slot)

    def put_away(self, workspace: str, held: Held, *, obsolete: bool) -> str | None:
        """Moves what came out: an obsolete tree to the trash, anything else to quarantine; returns its place there.

        As `retire`, it removes an obsolete tree where it is if the filesystem has no room for the rename.
        """
        with self._open("putting away a tree") as volume, self._enter(volume, workspace) as here:
            if not obsolete:
                shown = held.tree or LIVE
                try:
                    return f"{self.path}/{quarantine_entry(volume, here, SWITCH, held.slot, shown)}"
                except FileNotFoundError:
                    return None
            try:
                switching.discard(here, held)
            except OSError as error:
                if CODE_OF_ERRNO.get(error.errno or 0) is not ErrorCode.VOLUME_FULL:
                    raise
                self._remove_in_place(here, SWITCH, held.slot, held.tree)
            return None

    def clear_path(self, workspace: str) -> list[str]:
        """Moves to quarantine what stands in the place of the link or of the live directory; returns the new paths.

        The caller then makes the path right again. What is no stranger any more stays in a slot for that.
        """
        places: list[str] = []
        with self._open("clearing the path") as volume, self._enter(volume, workspace) as here:
            found = switching.standing(here)
            if isinstance(found, Stranger) and found.place == CURRENT:
                places.append(quarantine_entry(volume, here, ".", CURRENT, CURRENT))
            if isinstance(switching.live_tree(here), Stranger):
                held = switching.take(here, ".", LIVE)
                if held is not None and held.tree is None:
                    places.append(quarantine_entry(volume, here, SWITCH, held.slot, LIVE))
        return [f"{self.path}/{place}" for place in places]

    def make_link(self, workspace: str) -> bool:
        """Makes the link `current` if it is missing. Durable, re-entrant. True if it was missing."""
        with self._workspace(workspace, "making the link") as here:
            return switching.make_link(here)

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
            self._remove_in_place(here, TREES, name, name)
            return Retired.ABSENT

    def _remove_in_place(self, here: WorkspaceDir, place: str, entry: str, name: str | None) -> None:
        with here.wrapper(place, entry) as tree:
            _require_named(tree, name)
            self.engine.remove(tree, Cancel())
        here.drop(place, entry)

    def purge(self, workspace: str, name: str, cancel: Cancel | None = None) -> None:
        """Removes a retired tree and checks that it is gone. Durable, re-entrant; an absent tree is no error.

        Raises `EngineError` if the file in the directory says that it is another tree. A directory without that file is
        the rest of an earlier removal: nothing else comes into the trash.
        """
        if not self.has_workspace(workspace):
            return
        with self._workspace(workspace, "purging a tree", ErrorCode.REMOVE_FAILED) as here:
            with here.trashed(name) as tree:
                if tree is not None:
                    _require_named(tree, name)
                    with layout.reason_left(tree):
                        self.engine.remove(tree, cancel or Cancel())
            here.drop(TRASH, name)

    def why_it_stays(self, workspace: str, name: str) -> str:
        """Why the last purge of a tree in the trash failed, and the command that helps; empty if none has failed."""
        with self._workspace(workspace, "reading the trash") as here, here.trashed(name) as tree:
            return "" if tree is None else layout.read_reason(tree)

    def quarantine(self, workspace: str, name: str) -> str:
        """Moves a directory that no task intended out of `trees/`, whatever its name; returns its new path. Durable."""
        with self._open("quarantining") as volume, self._enter(volume, workspace) as here:
            return f"{self.path}/{quarantine_tree(volume, here, name)}"

    def kind_of_root(self, workspace: str, name: str) -> str | None:
        """What the root of the tree is, for a person: "a directory" unless somebody replaced it; None without one."""
        with self._workspace(workspace, "looking at a tree") as here, here.tree(name) as tree:
            return layout.kind_of(tree.descriptor, ROOT)

    def whole_trees(self, workspace: str) -> set[str]:
        """The trees that have a root."""
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
            os.chmod(tree.descriptor, layout.CLOSED)
            layout.name_tree(tree.descriptor, name)
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

    def misnamed(self, workspace: str) -> list[str]:
        """The names in `trees/` of directories that hold another tree."""
        with self._workspace(workspace, "listing trees") as here:
            return here.misnamed()

    def trash(self, workspace: str) -> list[str]:
        """All names in `trash/`, likewise."""
        with self._workspace(workspace, "listing the trash") as here:
            return here.names(TRASH)

    def trash_with_reasons(self, workspace: str) -> dict[str, str]:
        """The trees in `trash/`, each with `why_it_stays`."""
        return {name: self.why_it_stays(workspace, name) for name in self.trash(workspace) if is_tree_name(name)}


def _require_named(tree: TreeDir, name: str | None) -> None:
    """Raises `EngineError` if the file in the directory names another tree: that one must not be removed."""
    named = layout.tree_in(tree.descriptor)
    if named not in (None, name):
        raise EngineError(
            ErrorCode.REMOVE_FAILED,
            f"{tree.path} holds the tree {named}, not {name}: nothing was removed",
            "somebody moved it there; move it out of the workspace's directory, then retry the task",
            retryable=False,
        )
