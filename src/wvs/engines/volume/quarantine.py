"""Quarantine: what no task intended is moved aside for a person to look at, never deleted."""

import os

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import EngineError
from wvs.engines.kernel import OPEN_DIRECTORY, open_beneath, rename_noreplace
from wvs.engines.paths import QUARANTINE, SERVICE_DIRECTORY, TREES, quarantine_path, tree_path
from wvs.engines.volume.layout import WorkspaceDir


def quarantine_tree(volume: int, here: WorkspaceDir, name: str) -> str:
    """Moves `trees/<name>` to `.wvs/quarantine/<ws_id>/<n>-<name>`; returns the path below the volume. Durable.

    Raises TREE_MISSING. The number keeps apart directories that had one name at different times.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise EngineError(
            ErrorCode.CLONE_FAILED, f"{name[:80]!r} cannot be the name of a directory entry", retryable=False
        )
    trees = open_beneath(here.descriptor, TREES, OPEN_DIRECTORY)
    try:
        return _quarantine(volume, os.path.basename(here.path), trees, name, name)
    except FileNotFoundError as error:
        raise EngineError(
            ErrorCode.TREE_MISSING, f"{tree_path(here.path, name)} is missing", retryable=False
        ) from error
    finally:
        os.close(trees)


def quarantine_entry(volume: int, here: WorkspaceDir, place: str, entry: str, shown: str) -> str:
    """Moves `entry` of `place` there, as `<n>-<shown>`; returns its path below the volume. Durable.

    Raises FileNotFoundError.
    """
    with here.open(place) as directory:
        return _quarantine(volume, os.path.basename(here.path), directory, entry, shown)


def _quarantine(volume: int, workspace: str, directory: int, name: str, shown: str) -> str:
    place = _ensure_directories(volume, (SERVICE_DIRECTORY, QUARANTINE, workspace))
    try:
        new_name = _move(directory, name, place, shown)
        os.fsync(place)
        os.fsync(directory)
    finally:
        os.close(place)
    return quarantine_path(workspace, new_name)


def _move(directory: int, name: str, place: int, shown: str) -> str:
    number = len(os.listdir(place))
    while True:
        new_name = f"{number}-{os.fsencode(shown)[:200].decode(errors='backslashreplace')}"
        try:
            rename_noreplace(directory, name, place, new_name)
        except FileExistsError:
            number += 1
            continue
        return new_name


def _ensure_directories(volume: int, names: tuple[str, ...]) -> int:
    directory = os.dup(volume)
    for name in names:
        try:
            try:
                os.mkdir(name, 0o700, dir_fd=directory)
                os.fsync(directory)
            except FileExistsError:
                pass
            deeper = open_beneath(directory, name, OPEN_DIRECTORY)
        finally:
            os.close(directory)
        directory = deeper
    return directory
