"""Quarantine: directories that no task intended are moved aside for a person to look at, never deleted."""

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
    workspace = os.path.basename(here.path)
    place = _ensure_directories(volume, (SERVICE_DIRECTORY, QUARANTINE, workspace))
    trees = open_beneath(here.descriptor, TREES, OPEN_DIRECTORY)
    try:
        new_name = _move(trees, name, place)
        os.fsync(place)
        os.fsync(trees)
    except FileNotFoundError as error:
        raise EngineError(
            ErrorCode.TREE_MISSING, f"{tree_path(here.path, name)} is missing", retryable=False
        ) from error
    finally:
        os.close(trees)
        os.close(place)
    return quarantine_path(workspace, new_name)


def _move(trees: int, name: str, place: int) -> str:
    number = len(os.listdir(place))
    while True:
        new_name = f"{number}-{os.fsencode(name)[:200].decode(errors='backslashreplace')}"
        try:
            rename_noreplace(trees, name, place, new_name)
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
