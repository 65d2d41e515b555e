"""Which engine a volume uses: WVS tries them, chooses one and gives its reasons. It never changes the choice later."""

import errno
import os
import secrets
from collections.abc import Mapping
from typing import Final

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import DEFAULT_WORKERS, Engine, EngineName, Journal, Probe, TreeDir
from wvs.engines.btrfs import BtrfsEngine
from wvs.engines.copy import CopyEngine
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.juicefs import JuicefsEngine
from wvs.engines.kernel import OPEN_DIRECTORY, exists, rename_exchange, rename_noreplace
from wvs.engines.reflink import ReflinkEngine

ENGINES: Final[Mapping[EngineName, type[Engine]]] = {
    "btrfs": BtrfsEngine,
    "juicefs": JuicefsEngine,
    "reflink": ReflinkEngine,
    "copy": CopyEngine,
}
"""Every engine, best first: `choose` tries them in this order. Volumes store the names: add lines, rename none."""


_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
_INNER: Final = "inner"
_CONTENT: Final = "content"


class Choice(msgspec.Struct, frozen=True):
    """The chosen engine, and the result of every probe, in order."""

    engine: EngineName
    why: str
    probes: tuple[Probe, ...]


def make_engine(
    name: EngineName,
    workers: int = DEFAULT_WORKERS,
    journal: Journal | None = None,
    *,
    skip_unreadable: bool = False,
) -> Engine:
    """The engine of that name; raises `EngineError` for a name that is not in `ENGINES`."""
    if name not in ENGINES:
        raise EngineError(
            ErrorCode.VOLUME_UNAVAILABLE,
            f"this version of wvs has no engine {name!r}; it has {', '.join(ENGINES)}",
            "use the version of wvs that made the volume",
            retryable=False,
        )
    return ENGINES[name](workers, journal, skip_unreadable=skip_unreadable)


def choose(directory: TreeDir, filesystem: str, wanted: EngineName | None) -> Choice:
    """The best engine that works in `directory`, or `wanted` if that works. Raises `EngineError` if none works."""
    require_basics(directory, filesystem)
    if wanted is not None:
        probe = make_engine(wanted).probe(directory)
        if not probe.fits:
            raise EngineError(
                ErrorCode.VOLUME_UNAVAILABLE,
                f"the engine {wanted} cannot be used on this {filesystem}: {probe.why}",
                "omit --engine to let wvs choose, or put the volume on another filesystem",
                retryable=False,
            )
        return Choice(wanted, f"{wanted} as requested: {probe.why}", (probe,))
    probes: list[Probe] = []
    for name in ENGINES:
        probes.append(make_engine(name).probe(directory))
        if probes[-1].fits:
            return Choice(name, f"{name}: {probes[-1].why}", tuple(probes))
    raise EngineError(
        ErrorCode.VOLUME_UNAVAILABLE,
        f"no engine works on this {filesystem}: " + "; ".join(probe.why for probe in probes),
        retryable=False,
    )


def require_basics(directory: TreeDir, filesystem: str) -> None:
    """Tries what every engine and the layout need: directories, symlinks, and renames that exchange or do not replace.

    Raises `EngineError` that names what the filesystem lacks.
    """
    names = [f"probe-{secrets.token_hex(8)}" for _ in range(3)]
    where = directory.descriptor
    try:
        os.mkdir(names[0], 0o700, dir_fd=where)
        os.mkdir(names[1], 0o700, dir_fd=where)
        os.symlink("nowhere", names[2], dir_fd=where)
        lacking = _lacks_noreplace(where, *names[:2]) or _lacks_exchange(where, *names[:2])
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise from_os_error(error, ErrorCode.VOLUME_UNAVAILABLE, f"trying {directory.path}") from error
        lacking = f"lacks directories or symlinks: {error.strerror}"
    finally:
        _remove_trials(where, names)
    if lacking:
        raise EngineError(
            ErrorCode.VOLUME_UNAVAILABLE,
            f"{filesystem} {lacking}",
            "put the volume on ext4, XFS, btrfs or JuiceFS",
            retryable=False,
        )


def _lacks_noreplace(where: int, one: str, other: str) -> str:
    try:
        rename_noreplace(where, one, where, other)
    except FileExistsError:
        return ""
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return f"lacks RENAME_NOREPLACE: {error.strerror}"
    return "ignores RENAME_NOREPLACE and replaced a directory"


def _lacks_exchange(where: int, one: str, other: str) -> str:
    """Exchanges a directory with one in another directory, as a switch does."""
    os.mkdir(f"{one}/{_INNER}", 0o700, dir_fd=where)
    os.mkdir(f"{one}/{_INNER}/{_CONTENT}", 0o700, dir_fd=where)
    inside = os.open(one, OPEN_DIRECTORY, dir_fd=where)
    try:
        rename_exchange(inside, _INNER, where, other)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return f"lacks RENAME_EXCHANGE, by which a switch replaces the live tree: {error.strerror}"
    finally:
        os.close(inside)
    exchanged = exists(where, f"{other}/{_CONTENT}") and exists(where, f"{one}/{_INNER}")
    return "" if exchanged else "ignores RENAME_EXCHANGE: two directories were not exchanged"


def _remove_trials(where: int, names: list[str]) -> None:
    one, other, link = names
    inner = f"{one}/{_INNER}"
    removals = [(os.rmdir, each) for each in (f"{inner}/{_CONTENT}", inner, one, f"{other}/{_CONTENT}", other)]
    for remove, name in [*removals, (os.unlink, link)]:
        try:
            remove(name, dir_fd=where)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EROFS):
                raise
