"""Rebuild and verification of the read models on a long log: events per second, and the peak memory.

    python -m benchmarks.projections [--events 1000000] [--workspaces 50]

The aims are 20,000 events per second for a rebuild and 30,000 for a verification, with memory that does not grow with
the log.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import uvloop

from benchmarks.filling import Filler
from benchmarks.platform import database, environment, scratch
from wvs.postgres.pool import connect


async def fill(url: str, events: int, workspaces: int) -> int:
    """Creates workspaces and adds ready snapshots to them in turn. Returns the number of events."""
    connection = await connect(url, application_name="wvs-bench", command_timeout_s=600)
    fillers = [Filler(connection, f"w-{number}", batch=300) for number in range(workspaces)]
    for filler in fillers:
        await filler.create()
    for _ in range(events // workspaces // 3 - 1):
        for filler in fillers:
            await filler.snapshot()
    for filler in fillers:
        await filler.flush()
    count: int = await connection.fetchval("SELECT count(*) FROM wvs.events")
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    return count


def run(url: str, directory: Path, command: str) -> tuple[float, float]:
    """Seconds and peak MiB of one run of the program."""
    began = time.perf_counter()
    with (directory / "progress.log").open("w") as progress:
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvs", "projections", command],
            env=environment({"WVS_DATABASE_URL": url}),
            stderr=progress,
        )
        mib = 0.0
        while process.poll() is None:
            mib = max(mib, high_water_mib(process.pid))
            time.sleep(0.02)
    if process.returncode != 0:
        raise RuntimeError((directory / "progress.log").read_text())
    return time.perf_counter() - began, mib


def high_water_mib(pid: int) -> float:
    """The peak memory of a process. (The figure of wait4(2) includes the memory of the parent before exec.)"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0  # it has just ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--workspaces", type=int, default=50)
    options = parser.parse_args()
    for wanted in (options.events // 10, options.events):
        with scratch() as directory, database(directory) as url:
            events = uvloop.run(fill(url, wanted, options.workspaces))
            for command, aim in (("verify", 30_000), ("rebuild", 20_000)):
                seconds, mib = run(url, directory, command)
                print(
                    f"{command:8} {events:>9,} events in {seconds:6.1f} s: {events / seconds:7,.0f}/s (aim: {aim:,}), "
                    f"at most {mib:.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
