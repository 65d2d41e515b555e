"""Many writers in two processes, and followers that read each event once and in order.

Some commits come late: a deferred trigger holds the transaction open after its positions were assigned. A follower that
only asks for positions greater than its own must lose events in that run; otherwise the run proves nothing.

WVS_RACE_S   how long the writers write (make race sets it higher)
"""

import asyncio
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest
from msgspec import Struct
from tests.integration.eventlog.commanding import activated, write_path
from tests.integration.eventlog.race_writers import LATE
from tests.integration.eventlog.reading import read_events

from wvs.eventlog.chain import GENESIS, next_hash
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.reading.follower import read_page
from wvs.postgres.pool import Connection, Pool, connect

RACE_S = float(os.environ.get("WVS_RACE_S", "4"))
PROCESSES = 2
WRITERS = 13
"""Writers per process, without the one that commits late."""

HOLD_OPEN = f"""
CREATE FUNCTION hold_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.02 + 0.1 * random());
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER commit_late AFTER INSERT ON wvs.events DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.actor = '{LATE}') EXECUTE FUNCTION hold_open();
"""
LOG = "SELECT notification_id, originator_id, originator_version, topic, state, hash FROM wvs.events"
NAIVE = f"{LOG} WHERE notification_id > $1 ORDER BY notification_id LIMIT 1000"

Row = tuple[int, UUID, int, str, bytes, bytes]


class Trail(Struct):
    """What one follower read, in this order. `reads` counts its reads while the writers ran."""

    rows: list[Row]
    reads: int = 0


class Rig(Struct):
    """The run's database and its workspaces. All writers but the late ones write to the shared workspaces."""

    url: str
    shared: list[UUID]
    late: UUID

    @property
    def workspaces(self) -> list[UUID]:
        return [*self.shared, self.late]


@pytest.fixture
async def rig(pool: Pool, database_url: str) -> Rig:
    path = write_path(pool)
    shared = [await activated(path, f"shared-{n}") for n in range(8)]
    late = await activated(path, "late")
    await pool.execute(HOLD_OPEN)
    return Rig(database_url, shared, late)


@pytest.mark.timeout(RACE_S + 60)
async def test_followers_miss_nothing_that_any_of_many_writers_commits(pool: Pool, rig: Rig):
    done = asyncio.Event()
    ways = [pages(1000), pages(7), decoded(100), naive]
    followers = [asyncio.create_task(follow(rig.url, way, done)) for way in ways]
    committed = await asyncio.gather(*(writers(rig, n) for n in range(PROCESSES)))
    done.set()
    *sound, unsound = await asyncio.gather(*followers)

    whole: list[Row] = [tuple(row) for row in await pool.fetch(f"{LOG} ORDER BY notification_id")]
    acknowledged = sum(committed, Counter({str(ws): 3 for ws in rig.workspaces}))
    assert Counter(str(row[1]) for row in whole) == acknowledged
    for trail in sound:
        assert trail.reads > 20, "the follower read only after the race"
        assert trail.rows == whole
    assert_in_order(whole)
    lost = len(whole) - len(unsound.rows)
    many = PROCESSES * (WRITERS + 1)
    print(f"{len(whole)} events by {many} writers; the naive follower lost {lost}")  # noqa: T201 - for make race
    assert lost > 0, "no commit was overtaken: the race proved nothing"


def assert_in_order(rows: list[Row]) -> None:
    """Positions grow; each workspace has its versions 1, 2, 3 … in this order, chained."""
    versions: defaultdict[UUID, int] = defaultdict(int)
    hashes: defaultdict[UUID, bytes] = defaultdict(lambda: GENESIS)
    last = 0
    for position, workspace_id, version, topic, state, digest in rows:
        assert position > last
        assert version == versions[workspace_id] + 1
        assert digest == next_hash(hashes[workspace_id], workspace_id, version, topic, state)
        last, versions[workspace_id], hashes[workspace_id] = position, version, digest


async def writers(rig: Rig, number: int) -> Counter[str]:
    """Runs one process of writers. Returns how many events of each workspace were acknowledged to it."""
    arguments = {
        "url": rig.url,
        "seconds": RACE_S,
        "writers": WRITERS,
        "seed": 1000 * number,
        "shared": [str(ws) for ws in rig.shared],
        "late": str(rig.late),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.eventlog.race_writers",
        json.dumps(arguments),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return Counter(json.loads(printed))


Way = Callable[[Connection, int], Awaitable[tuple[list[Row], int]]]
"""One read: the rows after a position, and the position from which to read on."""


async def follow(url: str, read: Way, done: asyncio.Event) -> Trail:
    """Reads until the writers are done and no row follows."""
    connection = await connect(url, application_name="follower")
    trail, after = Trail([]), 0
    while True:
        last_look = done.is_set()
        rows, after = await read(connection, after)
        trail.rows += rows
        if not rows:
            if last_look:
                break
            await asyncio.sleep(0.002)
        elif not last_look:
            trail.reads += 1
    await connection.close()
    return trail


def pages(limit: int) -> Way:
    async def read(connection: Connection, after: int) -> tuple[list[Row], int]:
        page = await read_page(connection, after, limit)
        return page.rows, page.safe

    return read


def decoded(limit: int) -> Way:
    """Decodes each event, and reads on from the last one."""
    mapper = EventMapper()

    async def read(connection: Connection, after: int) -> tuple[list[Row], int]:
        rows: list[Row] = []
        for found in await read_events(connection, mapper, after, limit):
            stored = mapper.to_stored_event(found.recorded)
            place = (found.recorded.originator_id, found.recorded.originator_version)
            rows.append((found.position, *place, stored.topic, stored.state, found.hash))
        return rows, rows[-1][0] if rows else after

    return read


async def naive(connection: Connection, after: int) -> tuple[list[Row], int]:
    """The tempting wrong way: read all rows that have a greater position now."""
    rows: list[Row] = [tuple(row) for row in await connection.fetch(NAIVE, after)]
    return rows, rows[-1][0] if rows else after
