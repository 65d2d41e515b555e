"""The CPU time that programs of WVS take to start: while all executors are gone, no task runs until one has started.

    python -m benchmarks.cold_start [--runs 15]

`wvs executor` and `wvs api`: until their `ready` line. `wvsctl`: a whole run. The aim for an executor is at most 0.35 s
of CPU.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.platform import api, database, environment, scratch


def until_ready(command: str, settings: Mapping[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of `wvs COMMAND` from its start to its `ready` line."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvs", command],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith("ready "):
            raise RuntimeError(f"wvs {command} did not start")
        wall_s = time.perf_counter() - began
        threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9, wall_s
    finally:
        process.terminate()
        process.stdout.close()
        process.wait()


def whole_run(arguments: list[str], settings: Mapping[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of `wvsctl ARGUMENTS`, without those of a command that it runs."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvsctl", *arguments],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"wvsctl {' '.join(arguments)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - began


def measure(runs: int, directory: Path) -> None:
    with database(directory) as url:
        volume = directory / "volume"
        init = ["volume", "init", str(volume), "--engine", "copy"]
        subprocess.run([sys.executable, "-m", "wvs.cli.wvs", *init], check=True, stdout=subprocess.DEVNULL)
        ports = {"WVS_PORT": "0", "WVS_EXECUTOR_METRICS_PORT": "0"}
        settings = {"WVS_DATABASE_URL": url, "WVS_VOLUME": str(volume), **ports}
        with api(url, directory, WVS_VOLUME=str(volume)) as (address, _):
            console = {"WVS_URL": address}
            starts: dict[str, Callable[[], tuple[float, float]]] = {
                "wvs executor": lambda: until_ready("executor", settings),
                "wvs api": lambda: until_ready("api", settings),
                "wvsctl task list": lambda: whole_run(["task", "list"], console),
            }
            for name, start in starts.items():
                start()  # fills the caches
                cpu, wall = zip(*(start() for _ in range(runs)), strict=True)
                print(f"{name:20} CPU median {statistics.median(cpu):.2f} s, least {min(cpu):.2f} s", end="   ")
                print(f"wall median {statistics.median(wall):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    with scratch() as directory:
        measure(options.runs, directory)


if __name__ == "__main__":
    main()
