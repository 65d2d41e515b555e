"""`wvs epoch raise`."""

import asyncio
import sys

from wvs.cli.wvs.environment import database_url
from wvs.eventlog.epoch import FENCE_LEAP, Raised, raise_epoch
from wvs.postgres.access import check_access
from wvs.postgres.compatibility import check_schema
from wvs.postgres.pool import close, connect
from wvs.settings import Settings


def run_raise(settings: Settings) -> int:
    """Begins a new epoch and prints the consequences."""
    raised = asyncio.run(_raise(database_url(settings)))
    moved = "; the sequence was behind the log and has been corrected" if raised.sequence_moved else ""
    sys.stdout.write(
        f"epoch {raised.epoch} begins after position {raised.position}{moved}\n"
        f"every fence is {FENCE_LEAP} higher; WVS refuses positions and cursors of earlier epochs\n"
    )
    return 0


async def _raise(url: str) -> Raised:
    await check_access(url, for_writes=True)
    connection = await connect(url, application_name="wvs epoch")
    try:
        await check_schema(connection)
        return await raise_epoch(connection)
    finally:
        await close(connection)
