"""One process of the race: writers that share only the database, and one writer whose commits come late.

Prints the number of committed events as one JSON object: {workspace id: events}.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from uuid import UUID

from msgspec.structs import replace
from tests.integration.eventlog.commanding import ORIGIN, cancel, snapshot

from wvs.application.write_path import WritePath
from wvs.eventlog.codec import EventMapper
from wvs.postgres.pool import Pool, create_pool
from wvs.telemetry.metrics import Metrics

LATE = "late"
"""The actor whose commits the test's trigger holds open."""


async def write(pool: Pool, workspaces: list[UUID], until: float, actor: str, seed: int) -> Counter[str]:
    """Requests snapshots and cancels them until the time `until`, with a cache of its own."""
    chance = random.Random(seed)
    origin = replace(ORIGIN, actor=actor)
    committed: Counter[str] = Counter()
    path = WritePath(pool, EventMapper(), Metrics())
    while time.monotonic() < until:
        workspace_id = chance.choice(workspaces)
        asked = await snapshot(path, workspace_id, origin=origin)
        cancelled = await cancel(path, workspace_id, asked, origin=origin)
        committed[str(workspace_id)] += len(asked.events) + len(cancelled.events)
    await path.close()
    return committed


async def main(url: str, seconds: float, writers: int, seed: int, shared: list[UUID], late: UUID) -> None:
    pools = [await create_pool(url, application_name="race", size=1) for _ in range(writers + 1)]
    until = time.monotonic() + seconds
    ordinary = [write(pool, shared, until, "ordinary", seed + n) for n, pool in enumerate(pools[1:])]
    committed = await asyncio.gather(*ordinary, write(pools[0], [late], until, LATE, seed))
    json.dump(sum(committed, Counter()), sys.stdout)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    asyncio.run(
        main(
            arguments["url"],
            arguments["seconds"],
            arguments["writers"],
            arguments["seed"],
            [UUID(text) for text in arguments["shared"]],
            UUID(arguments["late"]),
        )
    )
