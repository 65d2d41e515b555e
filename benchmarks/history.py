"""How long `GET …/history` takes over HTTP for a workspace with 100,000 events, at random versions.

    python -m benchmarks.history [--events 100000] [--requests 300]

Each answer shows the workspace and a page of 50 snapshots and 50 tasks as they were. The aim is a p50 of at most 50 ms.
A workspace with 300 events is measured for comparison, because the length of the history should not matter.
"""

import argparse
import random
import time
from uuid import UUID

import uvloop

from benchmarks.aggregate import past
from benchmarks.platform import api, database, percentile, scratch
from benchmarks.requests import Client
from wvs.domain.ids import WORKSPACE, format_id

EVENTS_PER_SNAPSHOT = 3
AIM_MS = 50


async def measure(url: str, workspace: UUID, versions: list[int], query: str = "") -> list[float]:
    """Milliseconds of each answer."""
    path = f"/v1/workspaces/{format_id(WORKSPACE, workspace)}/history"
    times: list[float] = []
    async with Client(url) as client:
        for version in versions:
            began = time.perf_counter()
            await client.get(f"{path}?at_version={version}{query}")
            times.append((time.perf_counter() - began) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=300)
    options = parser.parse_args()
    random.seed(7)
    with scratch() as directory, database(directory) as url:
        for events in (300, options.events):
            workspace = uvloop.run(past(url, f"w-{events}", events // EVENTS_PER_SNAPSHOT))
            versions = [random.randint(1, events) for _ in range(options.requests)]
            with api(url, directory) as (served, _pid):
                times = uvloop.run(measure(served, workspace, versions))
                last = uvloop.run(measure(served, workspace, [events] * options.requests, "&limit=1000"))
            print(
                f"{events:,} events: p50 {percentile(times, 50):.1f} ms, p99 {percentile(times, 99):.1f} ms "
                f"(aim: p50 at most {AIM_MS} ms); with pages of 1,000 p50 {percentile(last, 50):.0f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
