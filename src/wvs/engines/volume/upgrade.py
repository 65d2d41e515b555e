"""Brings a volume of layout 1 to layout 2: the disk's part of `wvs volume upgrade` (docs/adr/0043-one-path.md).

In layout 1 the live tree lay in `trees/<tree>/root`, and `current` was a link to it. Each step is durable before the
next one begins, and finds what an earlier run has done: a run that was killed is repeated. The identity file is written
last, so until then no program uses the volume as one of layout 2.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from wvs.engines.base import DEFAULT_WORKERS
from wvs.engines.errors import EngineError
from wvs.engines.kernel import exists, rename_noreplace
from wvs.engines.paths import CURRENT, LINK_TARGET, LIVE, ROOT, TRASH, TREES
from wvs.engines.volume import switching
from wvs.engines.volume.identity import (
    LAYOUT_VERSION,
    VolumeIdentity,
    read_identity_of_any_layout,
    refuse_layout,
    write_identity,
)
from wvs.engines.volume.layout import WorkspaceDir, make_workspace, name_tree, tree_in
from wvs.engines.volume.names import is_tree_name
from wvs.engines.volume.opening import open_with
from wvs.engines.volume.switching import Stranger
from wvs.engines.volume.volume import Volume
from wvs.failpoints import failpoint

_OLD_LAYOUT: Final = 1
_NEW_LINK: Final = ".current.new"
"""The link before the rename that makes it `CURRENT`. Layout 1 used the same name, and may have left one behind."""

_CLEAR: Final = "Look at it, then run wvs volume check --repair: it moves it to quarantine"
_RESET: Final = "Recreate it from a snapshot: wvsctl current set WORKSPACE SNAPSHOT --reset"


class OldVolume(Volume):
    """A volume of layout 1, or of layout 2 once the upgrade has ended."""

    @staticmethod
    def read_identity(volume: int) -> VolumeIdentity | None:
        """The identity, of layout 1 or 2. Raises `EngineError` for a newer one."""
        identity = read_identity_of_any_layout(volume)
        if identity is not None and identity.layout not in (_OLD_LAYOUT, LAYOUT_VERSION):
            raise refuse_layout(identity.layout)
        return identity

    @contextmanager
    def locked(self) -> Generator[None]:
        """Holds the volume's lock, so that two upgrades do not run at once. Raises `EngineError` if it is held."""
        with self._open("locking the volume") as volume, self._locked(volume):
            yield

    def is_up_to_date(self) -> bool:
        """Whether the volume has the present layout."""
        with self._open("reading the layout") as volume:
            return self._reread(volume).layout == LAYOUT_VERSION

    def upgrade_workspace(self, workspace: str, live: str | None) -> list[str]:
        """Brings one workspace over; `live` is the live tree that Postgres names. Durable, re-entrant.

        Returns what a person should know of it, each a sentence.
        """
        with self._open("upgrading a workspace") as volume:
            make_workspace(volume, workspace)
            with self._enter(volume, workspace) as here:
                for place in (TREES, TRASH):
                    _name_all(here, place)
                failpoint("upgrade.named")
                said = _say_link(here, live)
                said += _bring_live(here, live)
                failpoint("upgrade.moved")
                return said + _replace_link(here)

    def finish_upgrade(self) -> None:
        """Writes the layout into the identity: the last step."""
        with self._open("ending the upgrade") as volume:
            write_identity(volume, msgspec.structs.replace(self._reread(volume), layout=LAYOUT_VERSION))


def open_old_volume(path: str) -> OldVolume:
    """As `open_volume`, for a volume that may have to be upgraded; it has to be able to work in layout 2."""
    return open_with(OldVolume, path, DEFAULT_WORKERS, None)


def _name_all(here: WorkspaceDir, place: str) -> None:
    """Writes the name of each tree beside its root. Other names are not those of trees."""
    for entry in filter(is_tree_name, here.names(place)):
        with suppress(EngineError), here.wrapper(place, entry) as tree:
            if exists(tree.descriptor, ROOT) and tree_in(tree.descriptor) is None:
                name_tree(tree.descriptor, entry)
                failpoint("upgrade.naming")


def _say_link(here: WorkspaceDir, live: str | None) -> list[str]:
    """What the link of layout 1 says otherwise than Postgres, which decides."""
    linked = _tree_of_link(here)
    if linked in (None, live):
        return []
    named = f"PostgreSQL names {live} as the live tree, which is taken" if live else "PostgreSQL names no live tree"
    return [f"{here.path}/{CURRENT} led to {linked}; {named}"]


def _bring_live(here: WorkspaceDir, live: str | None) -> list[str]:
    """Moves the live tree to its one path."""
    standing = switching.live_tree(here)
    if isinstance(standing, Stranger):
        return [f"{here.path}/{LIVE} is {standing.kind}; it was left there. {_CLEAR}"]
    if standing == live:
        return [] if live is None else _require_root(here, live)
    if standing is not None:
        # An executor of the old release has worked between two runs of the upgrade, and made another live tree.
        _move(here, (".", LIVE), (TREES, standing))
    if live is None:
        return []
    try:
        _move(here, (TREES, live), (".", LIVE))
    except FileNotFoundError:
        return [f"the live tree {live} of {here.path} is missing. {_RESET}"]
    return _require_root(here, live)


def _require_root(here: WorkspaceDir, live: str) -> list[str]:
    if exists(here.descriptor, f"{LIVE}/{ROOT}"):
        return []
    return [f"the live tree {live} of {here.path} has no directory {ROOT}. {_RESET}"]


def _move(here: WorkspaceDir, source: tuple[str, str], target: tuple[str, str]) -> None:
    with here.open(source[0]) as old, here.open(target[0]) as new:
        rename_noreplace(old, source[1], new, target[1])
        os.fsync(new)
        os.fsync(old)


def _replace_link(here: WorkspaceDir) -> list[str]:
    """Makes `CURRENT` lead to the one path, unless somebody has put something else there."""
    with suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(_NEW_LINK, dir_fd=here.descriptor, follow_symlinks=False).st_mode):
            os.unlink(_NEW_LINK, dir_fd=here.descriptor)
    if _tree_of_link(here) is not None:
        os.symlink(LINK_TARGET, _NEW_LINK, dir_fd=here.descriptor)
        failpoint("upgrade.linking")
        os.rename(_NEW_LINK, CURRENT, src_dir_fd=here.descriptor, dst_dir_fd=here.descriptor)
        os.fsync(here.descriptor)
        return []
    found = switching.standing(here)
    if isinstance(found, Stranger) and found.place == CURRENT:
        return [f"{here.path}/{CURRENT} is {found.kind}, not the link of WVS; it was left there. {_CLEAR}"]
    switching.make_link(here)
    return []


def _tree_of_link(here: WorkspaceDir) -> str | None:
    """The tree that a link of layout 1 leads to; None for anything else."""
    try:
        parts = os.readlink(CURRENT, dir_fd=here.descriptor).split("/")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise
    is_old = len(parts) == 3 and (parts[0], parts[2]) == (TREES, ROOT) and is_tree_name(parts[1])
    return parts[1] if is_old else None
