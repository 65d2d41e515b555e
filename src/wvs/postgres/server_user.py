"""Which operating-system user the embedded server runs as, and how a command is started as that user."""

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
    """The user of the server's processes and files; `drops_root` if it is another one than ours."""

    name: str
    uid: int
    gid: int
    drops_root: bool

    def command(self, command: Sequence[str], reach: Sequence[Path]) -> list[str]:
        """`command` so that it runs as this user and can look into every path of `reach`."""
        if not self.drops_root:
            return list(command)
        paths = [str(path) for path in reach]
        return [sys.executable, "-I", "-S", str(_LAUNCHER), str(self.uid), str(self.gid), *paths, "--", *command]

    def own(self, path: Path) -> None:
        """Give `path` itself (not what is below it) to this user."""
        if self.drops_root:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def _passwd_of(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError as error:
        raise EmbeddedPostgresFailed(
            f"user id {uid} has no entry in /etc/passwd, and PostgreSQL needs one; add one or set WVS_DATABASE_URL"
        ) from error


def server_user(pgdata: Path) -> ServerUser:
    """Ourselves; for root, the owner of `pgdata` if it exists, else `postgres`, else `nobody`."""
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
        "PostgreSQL does not run as root and there is neither a user postgres nor nobody; run as another user"
    )
