"""The content of a tree, read by a walk of the test's own: it shares no code with the engines that it checks."""

import hashlib
import os
import stat
from pathlib import Path

Manifest = dict[str, tuple[object, ...]]
"""For each path of the tree (`.` is its root): its type, and everything of it that a clone must keep."""


def manifest_of(root: Path) -> Manifest | None:
    """The manifest of the tree at `root`; None if there is no such directory."""
    if not root.is_dir():
        return None
    entries: Manifest = {}
    names: dict[tuple[int, int], str] = {}
    paths = ["."]
    for directory, subdirectories, files in os.walk(root):
        subdirectories.sort()
        paths += [os.path.relpath(os.path.join(directory, name), root) for name in sorted(subdirectories + files)]
    for path in sorted(paths):
        entries[path] = _entry(root / path, path, names)
    return entries


def _entry(place: Path, path: str, names: dict[tuple[int, int], str]) -> tuple[object, ...]:
    found = place.lstat()
    common = (stat.filemode(found.st_mode), found.st_uid, found.st_gid)
    if stat.S_ISLNK(found.st_mode):
        return (*common, os.readlink(place))
    if stat.S_ISDIR(found.st_mode):
        return (*common, found.st_mtime_ns)
    first = names.setdefault((found.st_dev, found.st_ino), path)
    return (*common, found.st_mtime_ns, found.st_size, first, hashlib.sha256(place.read_bytes()).hexdigest())


def difference(wanted: Manifest | None, found: Manifest | None) -> str:
    """The first few paths in which two manifests differ, for a failure's message; empty if they are equal."""
    if wanted is None or found is None:
        return "" if wanted is found else f"wanted {wanted and len(wanted)} entries, found {found and len(found)}"
    paths = sorted(p for p in wanted.keys() | found.keys() if wanted.get(p) != found.get(p))
    return "; ".join(f"{p}: wanted {wanted.get(p)}, found {found.get(p)}" for p in paths[:5])
