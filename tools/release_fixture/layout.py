"""The files of a fixture, and how a volume is packed, unpacked and described. Shared by the maker and the tests."""

import errno
import gzip
import io
import os
import stat
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from wvs.engines.mounts import mount_of
from wvs.engines.paths import IDENTITY_FILE, SERVICE_DIRECTORY

DATABASE: Final = "database.sql.gz"
VOLUME: Final = "volume.tar.gz"
EXPORT: Final = "audit.jsonl.gz"
EXPECTED: Final = "expected.json"
CHECKSUMS: Final = "SHA256SUMS"
FILES: Final = (DATABASE, VOLUME, EXPORT, EXPECTED)
_ATTRIBUTE: Final = "SCHILY.xattr."
"""The PAX keyword under which GNU tar, star and bsdtar store an extended attribute."""


class Replay(msgspec.Struct, frozen=True):
    """A request under a key that is still remembered, and the answer that a repetition gets."""

    method: str
    path: str
    body: Any
    key: str
    answer: Any


class Expected(msgspec.Struct, frozen=True):
    """What a reader of the fixture finds. `$VOLUME` stands for the volume's directory in `answers` and `replays`.

    `answers`: the answer of each GET. `trees`: a description of each tree by its path on the volume.
    """

    release: str
    migrations: list[str]
    workspaces: dict[str, str]
    events: int
    answers: dict[str, Any]
    replays: list[Replay]
    trees: dict[str, dict[str, str]]


def checksums(directory: Path) -> str:
    """The lines of `SHA256SUMS`, as sha256sum writes them."""
    return "".join(f"{sha256((directory / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES)


def compressed(content: bytes) -> bytes:
    """`content` with gzip, the same bytes at every time."""
    return gzip.compress(content, 9, mtime=0)


def pack(volume: Path) -> bytes:
    """The volume as a compressed archive: sorted, without owners, with modes, times, links and user attributes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(volume.rglob("*")):
            member = archive.gettarinfo(path, str(path.relative_to(volume)))
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = int(member.mtime)
            member.pax_headers = {f"{_ATTRIBUTE}{name}": text for name, text in _attributes(path).items()}
            if member.isreg():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)
    return compressed(packed.getvalue())


def unpack(archive: Path, volume: Path) -> None:
    """The packed volume in the new directory `volume`, owned by this process's user."""
    volume.mkdir()
    with tarfile.open(archive) as packed:
        # The archive is in the repository, and modes like setgid belong to what it shows.
        packed.extractall(volume, filter="fully_trusted")  # noqa: S202
        for member in packed.getmembers() if holds_attributes(volume) else []:
            for name, text in member.pax_headers.items():
                if name.startswith(_ATTRIBUTE):
                    os.setxattr(volume / member.name, name.removeprefix(_ATTRIBUTE), text.encode())


def adopt(volume: Path) -> None:
    """Prepares an unpacked volume for another database cluster and, unlike any real restore, another file system.

    The first is step 4 of runbooks/restored-database.md. No tool and no page changes the second: WVS does not move
    volumes between file systems, and a fixture has to.
    """
    path = volume / SERVICE_DIRECTORY / IDENTITY_FILE
    identity = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    directory = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    try:
        filesystem = mount_of(directory).filesystem
    finally:
        os.close(directory)
    path.write_bytes(msgspec.json.encode({**identity, "system_id": None, "filesystem": filesystem}))


def describe(root: Path) -> dict[str, str]:
    """One line for each name below `root`: kind, mode, links, content, target and attributes; not the times."""
    return {str(path.relative_to(root)): _described(path) for path in sorted(root.rglob("*"))}


def _described(path: Path) -> str:
    status = path.lstat()
    line = f"{stat.filemode(status.st_mode)} {1 if stat.S_ISDIR(status.st_mode) else status.st_nlink}"
    if stat.S_ISLNK(status.st_mode):
        return f"{line} -> {path.readlink()}"
    if stat.S_ISREG(status.st_mode):
        line += f" {status.st_size} {sha256(path.read_bytes()).hexdigest()[:16]}"
    return " ".join((line, *(f"{name}={text}" for name, text in _attributes(path).items())))


def holds_attributes(directory: Path) -> bool:
    """Whether files in `directory` can have user attributes."""
    try:
        os.setxattr(directory, "user.wvs.probe", b"")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    os.removexattr(directory, "user.wvs.probe")
    return True


def _attributes(path: Path) -> dict[str, str]:
    try:
        names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
        return {name: os.getxattr(path, name, follow_symlinks=False).decode() for name in sorted(names)}
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return {}
