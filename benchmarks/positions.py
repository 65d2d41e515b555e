"""What it costs that readers of the log keep only positions of events, on a log of a million events.

    python -m benchmarks.positions [--events 1000000] [--reads 2000]

Each figure compares the present reader with the one before it, read by read in the same run. The reader before took
the end of the complete range as its position, whether an event stood there or not, and counted every shared advisory
lock. The log ends with an event at first, then with appends that were rolled back. The last line compares the locks of
an append.
"""

import argparse
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import psycopg
import uvloop

from benchmarks.platform import database, percentile, scratch
from wvs.eventlog.reading.follower import read_page, safe_position
from wvs.eventlog.reading.workspace_log import read_workspace_page
from wvs.postgres.pool import OwnConnection, connect
from wvs.postgres.queries import sql

WORKSPACES = 1_000
ROLLED_BACK = 10_000

_WORKSPACE = "(lpad(to_hex({number}), 8, '0') || '-0000-7000-8000-000000000000')::uuid"
_SILENT = UUID("00000001-0000-7000-8000-000000000000")
_FILL = f"""INSERT INTO wvs.events
    (originator_id, originator_version, topic, state, hash, occurred_at, actor, request_id)
SELECT {_WORKSPACE.format(number="n % {workspaces}")}, 1 + n / {{workspaces}}, 'snapshot.requested.v1',
       convert_to(repeat('x', 300), 'UTF8'), decode(repeat('00', 32), 'hex'), now(), 'benchmark', 'benchmark'
FROM generate_series(0, {{events}} - 1) n"""
_STREAMS = f"""INSERT INTO wvs.streams
SELECT {_WORKSPACE.format(number="n")}, {{versions}}, decode(repeat('00', 32), 'hex')
FROM generate_series(0, {{workspaces}} - 1) n"""

_LAST = sql("log_last_position")
_KEY_BEFORE = """SELECT min((l.classid::bigint << 32) | l.objid::bigint) FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.mode = 'ShareLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_VERSION_AT, _OF_WORKSPACE = sql("workspace_version_at"), sql("workspace_events_between")
_LOCK_BEFORE = (
    "SELECT pg_advisory_xact_lock_shared(coalesce(pg_sequence_last_value('wvs.events_notification_id_seq'), 0))"
)
_LOCK_NOW = "SELECT wvs.hold_watermark()"

Read = Callable[[OwnConnection], Awaitable[object]]


def fill(url: str, events: int) -> None:
    """A log of `events` events in `WORKSPACES` workspaces."""
    versions = events // WORKSPACES
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL.format(workspaces=WORKSPACES, events=events).encode())
        connection.execute(_STREAMS.format(workspaces=WORKSPACES, versions=versions).encode())
        connection.execute(b"VACUUM ANALYZE wvs.events, wvs.streams")


def roll_back(url: str, count: int) -> None:
    """Appends that are rolled back, at the end of the log."""
    with psycopg.connect(url) as connection:
        for n in range(count // WORKSPACES):
            text = _FILL.format(workspaces=WORKSPACES, events=WORKSPACES)
            connection.execute(text.replace("1 + n /", f"{2_000_000 + n} + n /").encode())
            connection.rollback()


async def safe_before(connection: OwnConnection) -> int:
    """The position that the reader before kept."""
    last: int = await connection.fetchval(_LAST)
    key: int | None = await connection.fetchval(_KEY_BEFORE)
    return last if key is None else min(last, key)


async def workspace_page_before(connection: OwnConnection, after: int) -> None:
    """A page of a workspace, as it was read before."""
    until = await safe_before(connection)
    version = await connection.fetchval(_VERSION_AT, _SILENT, after)
    await connection.fetch(_OF_WORKSPACE, _SILENT, version, until, 32)


async def compare(connection: OwnConnection, name: str, reads: int, before: Read, now: Read) -> None:
    """Prints the medians of both and their ratio. They take turns, so that other load meets both alike."""
    times: dict[Read, list[float]] = {before: [], now: []}
    for _ in range(reads):
        for read in (before, now):
            began = time.perf_counter()
            await read(connection)
            times[read].append((time.perf_counter() - began) * 1e6)
    old, new = (percentile(times[read], 50) for read in (before, now))
    print(f"  {name:46} before {old:7.0f} µs   now {new:7.0f} µs   ratio {new / old:.2f}", flush=True)


async def readers(url: str, reads: int, *, end: int) -> None:
    """Every kind of reader at the end of the log, where a follower polls."""
    connection = await connect(url, application_name="wvs-bench")
    after = end - 1_000  # a workspace's stream that is behind: its page ends with other workspaces' events
    await compare(connection, "the position that a new stream gets", reads, safe_before, safe_position)
    await compare(connection, "poll of a follower, nothing new", reads, safe_before, lambda c: read_page(c, end, 100))
    await compare(
        connection,
        "page of one workspace",
        reads,
        lambda c: workspace_page_before(c, after),
        lambda c: read_workspace_page(c, _SILENT, after, 32),
    )
    await connection.close()


async def appends(url: str, reads: int) -> None:
    """The watermark of an append, in a transaction of its own."""
    connection = await connect(url, application_name="wvs-bench")
    await compare(
        connection,
        "watermark of an append",
        reads,
        lambda c: c.fetchval(_LOCK_BEFORE),
        lambda c: c.fetchval(_LOCK_NOW),
    )
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--reads", type=int, default=2_000)
    options = parser.parse_args()
    with scratch() as directory, database(directory) as url:
        fill(url, options.events)
        print(f"{options.events:,} events; the log ends with an event")
        uvloop.run(readers(url, options.reads, end=options.events))
        roll_back(url, ROLLED_BACK)
        print(f"then {ROLLED_BACK:,} appends were rolled back, and nothing has been vacuumed")
        uvloop.run(readers(url, options.reads, end=options.events))
        print("an append")
        uvloop.run(appends(url, options.reads))


if __name__ == "__main__":
    main()
