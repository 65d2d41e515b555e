"""Which volume belongs to which log: the log names its volume, and the volume names the database cluster of its log.

Without the first an executor on another volume would find none of the log's trees and mark every snapshot lost.
"""

import asyncio
from typing import Final
from uuid import UUID

from msgspec import Struct

from wvs.domain.ids import WORKSPACE, parse_id
from wvs.engines.errors import EngineError
from wvs.engines.volume.volume import Volume
from wvs.postgres.pool import Pool, acquire
from wvs.postgres.queries import sql

_NAMED: Final = sql("log_volume")
_NAME: Final = sql("name_volume")
_RENAME: Final = sql("rename_volume")
_COUNT_TREES: Final = sql("log_tree_count")
_KNOWS: Final = sql("knows_workspaces")
_EXECUTORS: Final = sql("connected_executors")
_SYSTEM_ID: Final = sql("system_identifier")

_WAY_OUT: Final = (
    "Nothing was changed. Set WVS_VOLUME to the volume of this database, or WVS_DATABASE_URL to the database of this "
    "volume. Only if this volume is to take the place of the other one, because it was restored or made again: stop "
    "all executors and run `wvs volume rebind`. Read: wvs runbook volume-losses"
)


class WrongVolumeError(Exception):
    """Log and volume do not belong together; the text names both and the way out."""


class ExecutorsConnectedError(Exception):
    """A volume cannot be given to another log, or be upgraded, while executors work on it."""


class NamedVolume(Struct, frozen=True):
    """The volume that the log named, and the path at which an executor bound it last."""

    id: UUID
    path: str


async def check_volume(pool: Pool, volume: Volume) -> None:
    """Raises `WrongVolumeError` unless the log names this volume, or names none and may still name this one."""
    named = await _named(pool)
    if named is None:
        await _require_trees(pool, volume)
    elif named.id != volume.identity.id:
        raise WrongVolumeError(
            f"This database belongs to the volume {named.id}, last used at {named.path}. At {volume.path} is another "
            f"volume, {volume.identity.id}. {_WAY_OUT}"
        )


async def bind(pool: Pool, volume: Volume) -> None:
    """Makes log and volume name each other.

    Raises `WrongVolumeError`, and `EngineError` if the volume cannot be used now.
    A log that names no volume yet, of an older release or an empty one, names this one from now on. If it has trees,
    the volume has to hold some of them.
    """
    await check_volume(pool, volume)
    try:
        await asyncio.to_thread(volume.bind, str(await pool.fetchval(_SYSTEM_ID)))
    except EngineError as error:
        if error.retryable:
            raise
        raise WrongVolumeError(f"{error.detail}. {error.hint}") from error
    if await pool.fetchval(_NAME, volume.identity.id, volume.path) is None:
        await check_volume(pool, volume)  # the executor of another volume was first


async def require_no_executors(pool: Pool, because: str) -> None:
    """Raises `ExecutorsConnectedError` while an executor is connected; `because` is part of its text."""
    async with acquire(pool) as connection:
        executors: int = await connection.fetchval(_EXECUTORS)
    if executors:
        raise ExecutorsConnectedError(
            f"Executors have {executors} connections to this database. {because} "
            "Stop all executors and run the command again."
        )


async def rebind(pool: Pool, volume: Volume) -> NamedVolume | None:
    """Makes log and volume name each other, whichever they named before; returns the volume that the log named.

    Raises `ExecutorsConnectedError` while an executor works.
    """
    await require_no_executors(pool, "They would go on working on the volume that it names now. Nothing was changed.")
    before = await _named(pool)
    await asyncio.to_thread(volume.rebind, str(await pool.fetchval(_SYSTEM_ID)))
    await pool.execute(_RENAME, volume.identity.id, volume.path)
    return before


async def _named(pool: Pool) -> NamedVolume | None:
    async with acquire(pool) as connection:
        row = await connection.fetchrow(_NAMED)
    return None if row is None or row["volume_id"] is None else NamedVolume(row["volume_id"], row["volume_path"])


async def _require_trees(pool: Pool, volume: Volume) -> None:
    """Raises `WrongVolumeError` if the log has trees and the volume has no workspace of this log."""
    trees: int = await pool.fetchval(_COUNT_TREES)
    on_volume = [parse_id(WORKSPACE, name) for name in await asyncio.to_thread(volume.workspaces)]
    if trees and not await pool.fetchval(_KNOWS, on_volume):
        raise WrongVolumeError(
            f"This database names {trees} trees and no volume yet (an earlier release wrote it). The volume "
            f"{volume.identity.id} at {volume.path} holds none of them. {_WAY_OUT}"
        )
