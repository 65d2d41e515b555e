"""Chooses the operating-system user that the embedded server runs as, and builds commands that run as that user."""

import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from wvs.postgres.errors import EmbeddedPostgresFailed

_CANDIDATES: Final = ("postgres", "nobody")
_LAUNCHER: Final = Path(__file__).with_name("drop_root.py")


class ServerUser(msgspec.Struct, frozen=True):
    """The user of the server's processes and files; `drops_root` if WVS runs as root and has to switch to this user."""

    name: str
    uid: int
    gid: int
    drops_root: bool

    def command(self, command: Sequence[str], searchable: Sequence[Path]) -> list[str]:
        """Wraps `command`, so that it runs as this user and may search every path in `searchable`."""
        if not self.drops_root:
            return list(command)
        paths = [str(path) for path in searchable]
        return [sys.executable, "-I", "-S", str(_LAUNCHER), str(self.uid), str(self.gid), *paths, "--", *command]

    def own(self, path: Path) -> None:
        """Makes this user the owner of `path` itself, not of its content."""
        if self.drops_root:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def _passwd_of(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError as error:
        raise EmbeddedPostgresFailed(
            f"user id {uid} has no entry in /etc/passwd, which PostgreSQL needs; add an entry, or set WVS_DATABASE_URL"
        ) from error


def server_user(pgdata: Path) -> ServerUser:
    """The current user. If that is root: the owner of `pgdata` if it exists, else `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        entry = _passwd_of(os.geteuid())
        return ServerUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, drops_root=False)
    if pgdata.exists() and (owner := pgdata.stat().st_uid) != 0:
        entry = _passwd_of(owner)
        return ServerUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, drops_root=True)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name=name, uid=entry.pw_uid, gid=entry.pw_gid, drops_root=True)
    raise EmbeddedPostgresFailed(
        "PostgreSQL does not run as root, and this host has neither a user `postgres` nor `nobody`; "
        "create one of them, run WVS as another user, or set WVS_DATABASE_URL"
    )
