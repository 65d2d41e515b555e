"""Each clone engine compared with a rival program on the same tree, in one run: the figures of docs/engines.md.

    python -m benchmarks.storage [--rounds 5] [--only reflink copy btrfs juicefs removal memory]

Needs root: it creates file systems of its own, in memory and in a mount namespace of its own. Rounds of the engine and
of the rival alternate. The best of each is compared, because other load only adds time. For btrfs, whose snapshots take
a millisecond or two, it is the median of 30 snapshots for each size.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable

from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.base import EngineName, TreeOwner
from wvs.engines.volume.names import tree_name
from wvs.engines.volume.opening import init_volume, open_volume

FILES = 20_000
BIG_BYTES = 2 << 30
MEMORY_PROGRAM = """
import resource, sys
from wvs.engines.volume.opening import open_volume
path, workspace, source, target = sys.argv[1:]
volume = open_volume(path)
stamp = volume.stamp(workspace, source)
volume.intend(workspace, target)
volume.clone(workspace, source, target, totals=stamp.totals)
volume.stamp(workspace, source)
volume.retire(workspace, target)
volume.purge(workspace, target)
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024)
"""


class Row(NamedTuple):
    """One line of the table. `value` is a ratio to the rival, or a figure with its unit in `shown`."""

    what: str
    shown: str
    value: float
    aim: float


class Bench:
    """A volume with one workspace on one file system."""

    def __init__(self, directory: Path, engine: EngineName) -> None:
        self.path = directory / "volume"
        init_volume(str(self.path), uuid.uuid4(), engine)
        self.volume = open_volume(str(self.path))
        self._number = 0
        self.workspace = format_id(WORKSPACE, self._uuid())
        self.volume.create_workspace(self.workspace)

    def _uuid(self) -> uuid.UUID:
        self._number += 1
        return uuid.UUID(int=time.time_ns() // 1_000_000 << 80 | 7 << 76 | 2 << 62 | self._number)

    def new_tree(self) -> str:
        name = tree_name(self._uuid(), 1)
        self.volume.intend(self.workspace, name)
        return name

    def live(self) -> str:
        name = self.new_tree()
        self.volume.create_root(self.workspace, name, TreeOwner(0, 0), 0o755)
        return name

    def root(self, name: str) -> Path:
        return Path(self.volume.path, self.workspace, "trees", name, "root")

    def settle(self) -> None:
        subprocess.run(["sync", "-f", self.path], check=True)

    def clone(self, source: str, workers: int = 2) -> tuple[float, str]:
        """Seconds of the clone itself, and the name of the new tree."""
        target = self.new_tree()
        self.volume.engine.workers = workers
        self.settle()
        return self.volume.clone(self.workspace, source, target).seconds, target

    def purge(self, name: str) -> float:
        """Seconds until the volume has confirmed that the tree is removed."""
        self.settle()
        started = time.perf_counter()
        self.volume.retire(self.workspace, name)
        self.volume.purge(self.workspace, name)
        return time.perf_counter() - started

    def run(self, *command: str | Path) -> float:
        """Seconds that a rival program takes."""
        self.settle()
        started = time.perf_counter()
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    def discard(self, path: Path) -> None:
        shutil.rmtree(path)


def fill(root: Path, files: int, mean_bytes: int = 15_000) -> None:
    """Creates `files` small files, 20 to a directory, with sizes distributed as in a source tree."""
    generator = random.Random(1)
    pool = os.urandom(1 << 20)
    for number in range(files):
        directory = root / f"d{number % 20}" / f"e{number // 20 % (files // 400 or 1)}"
        directory.mkdir(parents=True, exist_ok=True)
        size = min(int(generator.expovariate(1 / mean_bytes)), len(pool))
        start = generator.randrange(len(pool) - size + 1)
        (directory / f"file{number}").write_bytes(pool[start : start + size])


def against(what: str, ours: Sequence[float], rival: Sequence[float], rival_name: str, aim: float) -> Row:
    best, other = min(ours), min(rival)
    return Row(what, f"{best:.3f} s, {rival_name} {other:.3f} s", best / other, aim)


def file_engine(bench: Bench, kind: str, rival: Sequence[str], rounds: int) -> list[Row]:
    source = bench.live()
    fill(bench.root(source), FILES)
    ours: dict[int, list[float]] = {1: [], 2: []}
    theirs: list[float] = []
    removed: list[float] = []
    rm: list[float] = []
    beside = bench.path / "rival"
    for _ in range(rounds):
        theirs.append(bench.run(*rival, bench.root(source), beside))
        rm.append(bench.run("rm", "-rf", beside))
        for workers, times in ours.items():
            seconds, target = bench.clone(source, workers)
            times.append(seconds)
            removed.append(bench.purge(target))
    name = " ".join(rival)
    rows = [
        against(f"{kind}: {FILES} files, 1 worker", ours[1], theirs, name, 1.0),
        against(
            f"{kind}: {FILES} files, 2 workers", ours[2], theirs, name, 0.7 if rival[-1].endswith("always") else 1.0
        ),
        against(f"{kind}: removal of {FILES} files", removed, rm, "rm -rf", 0.8),
    ]
    bench.purge(source)
    return [*rows, big_file(bench, kind, rival, rounds)]


def big_file(bench: Bench, kind: str, rival: Sequence[str], rounds: int) -> Row:
    source = bench.live()
    block = os.urandom(1 << 20)
    with (bench.root(source) / "big").open("wb") as file:
        for _ in range(BIG_BYTES >> 20):
            file.write(block)
    ours: list[float] = []
    theirs: list[float] = []
    beside = bench.path / "rival"
    for _ in range(min(rounds, 3)):
        theirs.append(bench.run(*rival, bench.root(source), beside))
        bench.run("rm", "-rf", beside)
        seconds, target = bench.clone(source)
        ours.append(seconds)
        bench.purge(target)
    bench.purge(source)
    return against(f"{kind}: one file of 2 GB", ours, theirs, " ".join(rival), 1.0)


def bench_reflink(namespace: Namespace, rounds: int) -> list[Row]:
    point = filesystems.xfs(namespace, "xfs", 5000)
    return file_engine(Bench(point, "reflink"), "reflink on XFS", ("cp", "-a", "--reflink=always"), rounds)


def bench_copy(namespace: Namespace, rounds: int) -> list[Row]:
    point = filesystems.ext4(namespace, "ext4", 6000)
    return file_engine(Bench(point, "copy"), "copy on ext4", ("cp", "-a"), rounds)


def bench_btrfs(namespace: Namespace, rounds: int) -> list[Row]:
    bench = Bench(filesystems.btrfs(namespace, "btrfs", 6000), "btrfs")
    sources = {files: bench.live() for files in (1_000, 20_000, 100_000)}
    for files, source in sources.items():
        fill(bench.root(source), files, 500)
    seconds: dict[int, list[float]] = {files: [] for files in sources}
    made: list[str] = []
    # The sizes take turns, so that a busy moment affects all of them. All snapshots come before the first removal;
    # otherwise the kernel's background work for a removal would slow the next snapshot.
    for _ in range(max(rounds * 6, 30)):
        for files, source in sources.items():
            took, target = bench.clone(source)
            seconds[files].append(took)
            made.append(target)
    removal = min(bench.purge(target) for target in made[2::3])
    medians = {files: statistics.median(times) for files, times in seconds.items()}
    middle = sorted(medians.values())[1]
    spread = max(abs(each / middle - 1) for each in medians.values())
    shown = ", ".join(f"{files}: {each * 1000:.2f} ms" for files, each in medians.items())
    number = len(made) // len(sources)
    return [
        Row(f"btrfs: longest median of {number} snapshots in ms", shown, max(medians.values()) * 1000, 10),
        Row("btrfs: spread between 1,000, 20,000 and 100,000 files", shown, spread, 0.2),
        Row("btrfs: removal of 100,000 files in ms", f"{removal * 1000:.1f} ms", removal * 1000, 100),
    ]


def bench_juicefs(namespace: Namespace, rounds: int) -> list[Row]:
    bench = Bench(filesystems.juicefs(namespace), "juicefs")
    source = bench.live()
    fill(bench.root(source), FILES)
    program = filesystems.juicefs_program()
    ours: list[float] = []
    theirs: list[float] = []
    removed: list[float] = []
    beside = bench.path / "rival"
    for _ in range(min(rounds, 3)):
        theirs.append(bench.run(program, "clone", "--preserve", bench.root(source), beside))
        bench.run(program, "rmr", "--skip-trash", beside)
        totals = bench.volume.measure(bench.workspace, source)
        target = bench.new_tree()
        ours.append(bench.volume.clone(bench.workspace, source, target, totals=totals).seconds)
        removed.append(bench.purge(target))
    bench.run(program, "clone", "--preserve", bench.root(source), beside)
    rm = [bench.run("rm", "-rf", beside)]
    return [
        against(f"juicefs: {FILES} files", ours, theirs, "juicefs clone", 1.05),
        against(f"juicefs: removal of {FILES} files", removed, rm, "rm -rf", 0.8),
    ]


def bench_memory(namespace: Namespace, rounds: int) -> list[Row]:  # noqa: ARG001 - once is enough
    point = filesystems.xfs(namespace, "xfs-memory", 3000)
    rows: list[Row] = []
    for files in (1_000, 100_000):
        bench = Bench(point / str(files), "reflink")
        source = bench.live()
        fill(bench.root(source), files, 500)
        arguments = [str(bench.path), bench.workspace, source, tree_name(uuid.UUID(int=7 << 76 | 2 << 62 | files), 1)]
        done = subprocess.run(
            [sys.executable, "-c", MEMORY_PROGRAM, *arguments], check=True, capture_output=True, text=True
        )
        peak = int(done.stdout)
        rows.append(Row(f"memory in MB: stamp, clone, removal of {files} files", f"{peak} MB", peak, 150))
    return rows


PARTS: dict[str, Callable[[Namespace, int], list[Row]]] = {
    "reflink": bench_reflink,
    "copy": bench_copy,
    "btrfs": bench_btrfs,
    "juicefs": bench_juicefs,
    "memory": bench_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    arguments = parser.parse_args()
    print("| what | measured | value | aim | |\n|---|---|---|---|---|")
    missed = 0
    for part in arguments.only:
        with tempfile.TemporaryDirectory(prefix="wvs-bench-") as directory:
            namespace = Namespace(Path(directory), size="14g")
            try:
                for row in PARTS[part](namespace, arguments.rounds):
                    missed += row.value > row.aim
                    verdict = "held" if row.value <= row.aim else "MISSED"
                    print(f"| {row.what} | {row.shown} | {row.value:.2f} | {row.aim:g} | {verdict} |", flush=True)
            except Unavailable as reason:
                print(f"| {part} | not here: {reason} | | | |")
            finally:
                namespace.close()
    print(f"\n{missed} aims missed", file=sys.stderr)


if __name__ == "__main__":
    main()
