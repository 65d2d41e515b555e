"""How long a snapshot of a tree of 100 files takes, through API, queue and executor.

    python -m benchmarks.snapshot [--snapshots 300] [--files 100]

The time is the task's own, from `created_at` to `finished_at` on the database's clock. The time that a client with
`Prefer: wait` measures is printed too. The aim is a median of at most 60 ms.
"""

import argparse
import asyncio
import time
from datetime import datetime
from pathlib import Path

import uvloop

from benchmarks.platform import percentile, scratch, up
from benchmarks.requests import Client


async def measure(url: str, snapshots: int, files: int) -> tuple[list[float], list[float], str]:
    """Milliseconds from accepted to finished, milliseconds that the client waited, and the engine."""
    task_ms: list[float] = []
    client_ms: list[float] = []
    engine = ""
    async with Client(url) as client:
        made = await client.post_json("/v1/workspaces", b'{"name":"bench"}', prefer="wait=30")
        await asyncio.to_thread(grow, Path(made["workspace"]["path"]), files)
        path = f"/v1/workspaces/{made['workspace']['id']}/snapshots"
        for number in range(snapshots):
            began = time.perf_counter()
            answer = await client.post_json(path, b"{}", prefer="wait=30")
            client_ms.append((time.perf_counter() - began) * 1e3)
            task = answer["task"]
            if task["state"] != "succeeded":
                raise RuntimeError(f"snapshot {number}: {task}")
            duration = datetime.fromisoformat(task["finished_at"]) - datetime.fromisoformat(task["created_at"])
            task_ms.append(duration.total_seconds() * 1e3)
            engine = answer["snapshot"]["engine"]
    return task_ms, client_ms, engine


def grow(tree: Path, files: int) -> None:
    """Files of 4 KiB, ten to a directory."""
    for number in range(files):
        directory = tree / f"d{number // 10}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_bytes(number.to_bytes(4, "big") * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=300)
    parser.add_argument("--files", type=int, default=100)
    options = parser.parse_args()
    with scratch() as directory, up(directory) as (url, _pid):
        task_ms, client_ms, engine = uvloop.run(measure(url, options.snapshots, options.files))
    print(
        f"{options.snapshots} snapshots of {options.files} files, engine {engine}; milliseconds (aim: p50 at most 60)"
    )
    for name, times in (("accepted to finished", task_ms), ("as the client sees it", client_ms)):
        print(f"{name:22} p50 {percentile(times, 50):6.1f}   p95 {percentile(times, 95):6.1f}")


if __name__ == "__main__":
    main()
