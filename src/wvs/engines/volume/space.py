"""The room on a volume's filesystem, and the check before a clone takes some of it."""

import os
from typing import Final

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import EngineError

_SPACE_KEPT_FREE: Final = 1024 * 1024
"""Bytes that no clone may take: without room for a new name nothing can be moved, sealed or linked any more."""


class Space(msgspec.Struct, frozen=True):
    """Room on the filesystem for the service's user, in bytes; `free_inodes` is None if inodes are not limited."""

    total: int
    free: int
    free_inodes: int | None


def read_space(descriptor: int) -> Space:
    """The room on the filesystem of an open directory. Raises `OSError`."""
    figures = os.fstatvfs(descriptor)
    inodes = figures.f_favail if figures.f_files else None
    return Space(figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize, inodes)


def require_space(descriptor: int, path: str, needed: int, inodes: int) -> None:
    """Raises `EngineError` (`VOLUME_FULL`) unless `needed` bytes, the reserve and `inodes` are free."""
    space = read_space(descriptor)
    if space.free < needed + _SPACE_KEPT_FREE:
        raise EngineError(
            ErrorCode.VOLUME_FULL,
            f"{path} has {space.free} bytes free; the clone needs up to {needed}, and WVS keeps another "
            f"{_SPACE_KEPT_FREE} bytes (1 MiB) free",
        )
    if space.free_inodes is not None and space.free_inodes < inodes:
        detail = f"{path} has {space.free_inodes} inodes free, the clone needs at least {inodes}"
        raise EngineError(ErrorCode.VOLUME_FULL, detail)
