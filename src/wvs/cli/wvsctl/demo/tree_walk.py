"""An independent look at a directory tree: shares no code with the engines that it checks."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from os import stat_result
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from msgspec import Struct


class Entry(Struct, frozen=True):
    """What one path is; `content` is a file's SHA-256, a link's target, and empty for anything else.

    `mode` has the kind of file in it (stat(2), st_mode).
    """

    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: str


Tree = Mapping[str, Entry]


def walk(root: Path) -> Tree:
    """Every path below `root` with what it is. Links inside are read, never followed; `root` may be one."""
    return dict(_entries(root, ""))


def files_of(tree: Tree) -> int:
    """How many regular files it has."""
    return sum(1 for entry in tree.values() if S_ISREG(entry.mode))


def fingerprint(tree: Tree) -> str:
    """A short text that differs where any entry does."""
    digest = sha256()
    for path in sorted(tree):
        digest.update(repr((path, tree[path])).encode())
    return digest.hexdigest()[:12]


def difference(one: Tree, other: Tree) -> str:
    """The first path that is not the same in both, for a message; empty if there is none."""
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
