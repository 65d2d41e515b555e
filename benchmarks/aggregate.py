"""How long a command takes over HTTP in a workspace with 100,000 snapshots, compared with a workspace with 10.

    python -m benchmarks.aggregate [--snapshots 100000] [--commands 90]

The command is `POST …/snapshots`, sent to both workspaces in turn. The aim is a ratio of at most 1.5. Cold: the first
command after the API's start, which loads the workspace, from a memento if there is one.
"""

import argparse
import time
from uuid import UUID

import uvloop

from benchmarks.filling import Filler
from benchmarks.platform import api, database, percentile, scratch
from benchmarks.requests import Client
from wvs.domain.ids import WORKSPACE, format_id
from wvs.postgres.pool import connect


async def past(url: str, name: str, snapshots: int) -> UUID:
    """A workspace with that many ready snapshots."""
    connection = await connect(url, application_name="wvs-bench", command_timeout_s=600)
    filler = Filler(connection, name)
    await filler.create()
    for _ in range(snapshots):
        await filler.snapshot()
    await filler.flush()
    await connection.execute("ANALYZE")
    await connection.close()
    return filler.workspace_id


async def measure(url: str, workspaces: list[UUID], commands: int) -> list[list[float]]:
    """Milliseconds of each command, for each workspace; the first command in a workspace is the cold one."""
    times: list[list[float]] = [[] for _ in workspaces]
    async with Client(url) as client:
        for _ in range(commands):
            for number, workspace in enumerate(workspaces):
                began = time.perf_counter()
                await client.post(f"/v1/workspaces/{format_id(WORKSPACE, workspace)}/snapshots", b"{}")
                times[number].append((time.perf_counter() - began) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=100_000)
    parser.add_argument("--commands", type=int, default=90, help="per workspace; below the bound of 100 queued tasks")
    options = parser.parse_args()
    with scratch() as directory, database(directory) as url:
        workspaces = [uvloop.run(past(url, f"w-{count}", count)) for count in (10, options.snapshots)]
        for start in ("no memento", "a memento"):
            with api(url, directory) as (served, _pid):
                times = uvloop.run(measure(served, workspaces, options.commands // 2))
            small, big = times
            print(f"API's start with {start}: cold {small[0]:.1f} ms and {big[0]:.1f} ms")
            warm = percentile(small[5:], 50), percentile(big[5:], 50)
            print(
                f"p50 with 10 snapshots {warm[0]:.2f} ms, with {options.snapshots:,} {warm[1]:.2f} ms: "
                f"ratio {warm[1] / warm[0]:.2f} (aim: at most 1.5)",
                flush=True,
            )


if __name__ == "__main__":
    main()
