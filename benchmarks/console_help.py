"""How long `wvsctl --help` takes, compared with an interpreter that does nothing.

    python -m benchmarks.console_help [--runs 40]

The aim is at most 150 ms.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.platform import percentile


def milliseconds(command: list[str]) -> float:
    """The time of one run of the whole process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    console = str(Path(sys.executable).parent / "wvsctl")
    commands = {
        "wvsctl --help": [console, "--help"],
        "wvsctl snapshot create --help": [console, "snapshot", "create", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    times = {name: [milliseconds(command)] for name, command in commands.items()}  # the first fills the caches
    for _ in range(options.runs):
        for name, command in commands.items():
            times[name].append(milliseconds(command))
    for name, measured in times.items():
        print(f"{name:32} p50 {percentile(measured[1:], 50):6.1f} ms   p95 {percentile(measured[1:], 95):6.1f} ms")


if __name__ == "__main__":
    main()
