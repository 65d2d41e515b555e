"""The path of the live tree, and the steps by which another tree takes its place there (docs/adr/0043-one-path.md).

No fence can guard a rename: its process may have been stopped for an hour just before it. Therefore every hand that
switches first takes the tree into a slot of its own, a name below `SWITCH` that no other hand ever fills. It then looks
at what it has taken, asks Postgres once more, and exchanges its slot with `LIVE`. What a slot holds can only be
exchanged by its owner, and be taken away by others. So nobody can exchange any more once all slots are empty.
"""

import errno
import os
import secrets
from typing import Final

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import EngineError
from wvs.engines.kernel import exists, rename_exchange, rename_noreplace
from wvs.engines.paths import CURRENT, LINK_TARGET, LIVE, ROOT, SWITCH, TRASH, TREES
from wvs.engines.volume.layout import WorkspaceDir, kind_of, name_tree, tree_in
from wvs.engines.volume.names import checked_tree

_SHOWN: Final = 200


class Stranger(msgspec.Struct, frozen=True):
    """Something that WVS did not make, in the place of `CURRENT` or `LIVE`; `kind` describes it for a person."""

    kind: str
    place: str = CURRENT


class Held(msgspec.Struct, frozen=True):
    """What lies in a slot below `SWITCH`; `tree` is None for something that WVS did not make."""

    slot: str
    tree: str | None


def standing(here: WorkspaceDir) -> str | Stranger | None:
    """The tree at the workspace's path; a stranger there; None if it is not complete, or a switch has not ended."""
    link = _at_link(here)
    if isinstance(link, Stranger):
        return link
    # The slots first: a hand that fills one after this look reads the newest name before it exchanges.
    slots = here.names(SWITCH)
    live = live_tree(here)
    if isinstance(live, Stranger):
        return live
    return None if link is None or slots else live


def live_tree(here: WorkspaceDir) -> str | Stranger | None:
    """The tree in `LIVE`, something else there, or None without it."""
    kind = kind_of(here.descriptor, LIVE)
    if kind != "a directory":
        return None if kind is None else Stranger(kind, LIVE)
    with here.wrapper(".", LIVE) as live:
        tree = tree_in(live.descriptor)
    return Stranger("a directory without the file with its tree's name", LIVE) if tree is None else tree


def take(here: WorkspaceDir, place: str, entry: str) -> Held | None:
    """Moves `entry` of `place` into a new slot. Returns what it then holds; None if `entry` is absent. Durable."""
    if place == TREES:
        _name_if_nameless(here, checked_tree(entry))
    slot = secrets.token_hex(8)
    with here.open(place) as source, here.open(SWITCH) as slots:
        try:
            rename_noreplace(source, entry, slots, slot)
        except FileNotFoundError:
            return None
        os.fsync(slots)
        os.fsync(source)
    return look_at(here, slot)


def look_at(here: WorkspaceDir, slot: str) -> Held | None:
    """What the slot holds; None if it is empty."""
    with here.open(SWITCH) as slots:
        if not exists(slots, slot):
            return None
    try:
        with here.wrapper(SWITCH, slot) as wrapper:
            return Held(slot, tree_in(wrapper.descriptor))
    except EngineError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            return Held(slot, None)
        raise


def bring(here: WorkspaceDir, slot: str) -> None:
    """Exchanges the slot with `LIVE`, or moves it there if nothing is. Durable. Does nothing if the slot is empty."""
    with here.open(SWITCH) as slots:
        try:
            if exists(here.descriptor, LIVE):
                rename_exchange(slots, slot, here.descriptor, LIVE)
            else:
                rename_noreplace(slots, slot, here.descriptor, LIVE)
        except (FileNotFoundError, FileExistsError):
            return  # another hand was faster; the caller looks again
        os.fsync(here.descriptor)
        os.fsync(slots)


def discard(here: WorkspaceDir, held: Held) -> bool:
    """Moves a tree from its slot to the trash. Durable. False if the slot is empty.

    Raises `EngineError` if a tree of that name is in the trash already.
    """
    name = checked_tree(held.tree or "")
    with here.open(SWITCH) as slots, here.open(TRASH) as trash:
        try:
            rename_noreplace(slots, held.slot, trash, name)
        except FileNotFoundError:
            return False
        except FileExistsError as error:
            raise EngineError(
                ErrorCode.REMOVE_FAILED,
                f"{here.path} has {name} in {SWITCH}/{held.slot} and in its trash",
                "move one of the two out of the workspace's directory, then retry the task",
                retryable=False,
            ) from error
        os.fsync(trash)
        os.fsync(slots)
    return True


def make_link(here: WorkspaceDir) -> bool:
    """Makes `CURRENT` if it is missing. Durable. True if it was missing."""
    try:
        os.symlink(LINK_TARGET, CURRENT, dir_fd=here.descriptor)
    except FileExistsError:
        return False
    os.fsync(here.descriptor)
    return True


def _name_if_nameless(here: WorkspaceDir, tree: str) -> None:
    """A directory under `TREES` has its own name: once it has left, only the file in it says so."""
    try:
        with here.wrapper(TREES, tree) as wrapper:
            if tree_in(wrapper.descriptor) is None and exists(wrapper.descriptor, ROOT):
                name_tree(wrapper.descriptor, tree)
    except EngineError:
        return


def _at_link(here: WorkspaceDir) -> Stranger | bool | None:
    """True if the link is what it should be; None if it is missing."""
    try:
        target = os.readlink(CURRENT, dir_fd=here.descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        kind = kind_of(here.descriptor, CURRENT)
        return None if kind is None else Stranger(kind)
    return True if target == LINK_TARGET else Stranger(f"a link to {target[:_SHOWN]!r}")
