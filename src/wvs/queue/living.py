"""Which executors live, as every process can see in PostgreSQL."""

from typing import Final

from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

REAPER: Final = "wvs-reaper"
"""The name of one connection of each executor. It opens when tasks can run, asks PostgreSQL about once a second, and
vanishes with its process."""

_LIVING: Final = sql("living_executors")


async def living_executors(connection: Connection, within_s: float) -> int:
    """How many executors can run tasks. One that has not used its connection for `within_s` seconds hangs: not counted.

    A database has one volume, so each of them serves every workspace of the database.
    """
    count: int = await connection.fetchval(_LIVING, REAPER, within_s)
    return count
