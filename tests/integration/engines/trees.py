"""Trees to clone: one with everything in it that a filesystem can hold, and the account of a tree to compare by."""

import hashlib
import os
import socket
import stat
from pathlib import Path
from typing import NamedTuple

SPARSE_BYTES = 64 << 20
_CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")


def odd_names() -> list[bytes]:
    return [b"new\nline", b"\xff\xfe not utf-8", b"-rf", b" ", b"quote'\"\\", "ü€😀".encode(), b"n" * 255]


def build_everything(root: Path, *, devices: bool) -> None:
    """Fills `root`; `devices` (and capabilities, other owners) need root."""
    (root / "dir" / "deep" / "deeper").mkdir(parents=True)
    for number in range(100):
        (root / "dir" / f"small{number}").write_bytes(os.urandom(number * 7))
    (root / "empty").touch()
    (root / "big").write_bytes(os.urandom(3 << 20))
    for name in odd_names():
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(name)
        os.mkdir(os.path.join(os.fsencode(root), b"dir", name))
    _sparse(root / "sparse")
    _links(root)
    _modes(root)
    os.mkfifo(root / "fifo", 0o640)
    _attributes(root)
    if devices:
        _as_root(root)
    _times(root)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)
        file.seek(SPARSE_BYTES // 2)
        file.write(b"middle" * 1000)


def _links(root: Path) -> None:
    os.link(root / "big", root / "dir" / "deep" / "big again")
    os.link(root / "big", root / "dir" / "deep" / "deeper" / "big once more")
    os.link(root / "empty", root / "empty too")
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "dangling").symlink_to("nowhere/at/all")
    (root / "to directory").symlink_to("dir")
    os.link(root / "dangling", root / "dir" / "dangling too", follow_symlinks=False)


def _modes(root: Path) -> None:
    for mode in (0o000, 0o111, 0o444, 0o4755, 0o2755, 0o7777, 0o600):
        (root / f"mode {mode:o}").write_bytes(b"x")
        (root / f"mode {mode:o}").chmod(mode)
    for mode in (0o1777, 0o2755, 0o555, 0o700):
        (root / f"dir mode {mode:o}").mkdir()
        (root / f"dir mode {mode:o}" / "inside").write_bytes(b"y")
        (root / f"dir mode {mode:o}").chmod(mode)


def _attributes(root: Path) -> None:
    (root / "attributed").write_bytes(b"z")
    os.setxattr(root / "attributed", "user.small", b"value")
    os.setxattr(root / "attributed", "user.binary", bytes(range(256)))
    os.setxattr(root / "dir", "user.of directory", b"\0")


def _as_root(root: Path) -> None:
    os.mknod(root / "null device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "block device", 0o600 | stat.S_IFBLK, os.makedev(7, 200))
    (root / "capable").write_bytes(b"#!/bin/true")
    os.setxattr(root / "capable", "security.capability", _CAP_NET_RAW)
    os.setxattr(root / "attributed", "trusted.secret", b"t")
    for name, uid, gid in (("small1", 1234, 4321), ("small2", 65534, 0)):
        os.chown(root / "dir" / name, uid, gid)
    os.chown(root / "dangling", 77, 88, follow_symlinks=False)
    os.chown(root / "mode 4755", 1000, 1000)
    (root / "mode 4755").chmod(0o4755)
    os.chown(root / "dir mode 2755", 1000, 1000)
    (root / "dir mode 2755").chmod(0o2755)


def _times(root: Path) -> None:
    """Gives every entry its own times, to the nanosecond, directories last."""
    number = 0
    for directory, subdirectories, files in os.walk(root, topdown=False):
        for name in (*files, *subdirectories, "."):
            number += 1
            times = (1_600_000_000_123_456_789 + number, 1_500_000_000_987_654_321 + number)
            os.utime(os.path.join(directory, name), ns=times, follow_symlinks=False)


def make_socket(path: Path) -> None:
    """Leaves a socket behind; by a short relative name, because a socket's address holds 107 bytes."""
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


class Entry(NamedTuple):
    kind: int
    mode: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    links: int
    device: int
    attributes: tuple[tuple[str, bytes], ...]
    content: str


def account(root: Path) -> dict[bytes, Entry]:
    """Everything about a tree that a clone keeps, by path. Recursive and simple on purpose: it judges the engines."""
    found: dict[bytes, Entry] = {}
    directory = os.open(root, os.O_RDONLY)
    try:
        _account(directory, b".", found)
    finally:
        os.close(directory)
    return found


def _account(directory: int, path: bytes, found: dict[bytes, Entry]) -> None:
    found[path] = _entry(directory, b".")
    for name in os.listdir(f"/proc/self/fd/{directory}".encode()):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            below = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                _account(below, path + b"/" + name, found)
            finally:
                os.close(below)
        else:
            found[path + b"/" + name] = _entry(directory, name)


def _entry(directory: int, name: bytes) -> Entry:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    path = b"/proc/self/fd/%d/%s" % (directory, name)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    attributes = tuple((each, os.getxattr(path, each, follow_symlinks=False)) for each in names)
    kind = stat.S_IFMT(status.st_mode)
    content = ""
    if kind == stat.S_IFLNK:
        content = os.fsdecode(os.readlink(name, dir_fd=directory))
    elif kind == stat.S_IFREG:
        with open(os.open(name, os.O_RDONLY, dir_fd=directory), "rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
    is_directory = kind == stat.S_IFDIR
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        size=0 if is_directory else status.st_size,
        mtime_ns=status.st_mtime_ns,
        links=0 if is_directory else status.st_nlink,
        device=status.st_rdev,
        attributes=attributes,
        content=content,
    )


def allocated(root: Path) -> int:
    """Bytes that the tree occupies."""
    return sum(
        os.stat(os.path.join(directory, name), follow_symlinks=False).st_blocks * 512
        for directory, _, files in os.walk(root)
        for name in files
    )
