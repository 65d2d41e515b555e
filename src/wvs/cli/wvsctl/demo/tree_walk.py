"""Reads a directory tree independently: it shares no code with the engines that the demo checks."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from os import stat_result
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from msgspec import Struct


class Entry(Struct, frozen=True):
    """One path of a tree. `content` is a file's SHA-256, a link's target, and empty for anything else.

    `mode` includes the file type (stat(2), st_mode).
    """

    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: str


Tree = Mapping[str, Entry]


def walk(root: Path) -> Tree:
    """Every path below `root` with its entry. It reads links but does not follow them; `root` itself may be a link."""
    return dict(_entries(root, ""))


def count_files(tree: Tree) -> int:
    """The number of regular files in the tree."""
    return sum(1 for entry in tree.values() if S_ISREG(entry.mode))


def fingerprint(tree: Tree) -> str:
    """A short digest that changes when any entry changes."""
    digest = sha256()
    for path in sorted(tree):
        digest.update(repr((path, tree[path])).encode())
    return digest.hexdigest()[:12]


def difference(one: Tree, other: Tree) -> str:
    """The first path that differs between the trees, for a message; empty if the trees are equal."""
    for path in sorted({*one, *other}):
        if one.get(path) != other.get(path):
            return f"{path}: {one.get(path)} against {other.get(path)}"
    return ""


def _entries(directory: Path, within: str) -> Iterator[tuple[str, Entry]]:
    for item in directory.iterdir():
        path = f"{within}{item.name}"
        status = item.lstat()
        yield path, Entry(status.st_mode, (status.st_uid, status.st_gid), status.st_mtime_ns, _content(item, status))
        if S_ISDIR(status.st_mode):
            yield from _entries(item, f"{path}/")


def _content(item: Path, status: stat_result) -> str:
    if S_ISREG(status.st_mode):
        return sha256(item.read_bytes()).hexdigest()
    return str(item.readlink()) if S_ISLNK(status.st_mode) else ""
