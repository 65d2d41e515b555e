"""The system under measurement: a durable embedded PostgreSQL in a scratch directory, and the programs of WVS."""

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.migrate import migrate

READY = "ready "


@contextlib.contextmanager
def scratch() -> Generator[Path]:
    """A temporary directory for the benchmark; it is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="wvs-bench-") as directory:
        Path(directory).chmod(0o755)  # the embedded server does not run as root
        yield Path(directory)


@contextlib.contextmanager
def database(directory: Path) -> Generator[str]:
    """The URL of a migrated database whose commits are durable, as in production."""
    with EmbeddedPostgres(directory / "database") as server:
        url = server.url()
        asyncio.run(migrate(url))
        yield url


@contextlib.contextmanager
def api(url: str, directory: Path, **settings: str) -> Generator[tuple[str, int]]:
    """A `wvs api` on the database: its URL and its process id."""
    with _program(["api"], directory / "api.log", {"WVS_DATABASE_URL": url, "WVS_PORT": "0", **settings}) as process:
        if process.stdout is None or not (line := process.stdout.readline()).startswith(READY):
            raise RuntimeError(f"wvs api did not start: {(directory / 'api.log').read_text()}")
        yield line.removeprefix(READY).strip(), process.pid


@contextlib.contextmanager
def up(directory: Path, **settings: str) -> Generator[tuple[str, int]]:
    """A whole `wvs up` with its own database, API and executor: its URL and its process id."""
    arguments = ["up", "--data-dir", str(directory / "data")]
    ports = {"WVS_PORT": "0", "WVS_EXECUTOR_METRICS_PORT": "0"}
    with _program(arguments, directory / "up.log", {**ports, **settings}) as process:
        if process.stdout is None or not (line := process.stdout.readline()).startswith(READY):
            raise RuntimeError(f"wvs up did not start: {(directory / 'up.log').read_text()}")
        yield line.removeprefix(READY).strip(), process.pid


@contextlib.contextmanager
def _program(arguments: list[str], log: Path, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvs", *arguments],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with these settings of WVS and no others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WVS_")} | dict(settings)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_by_program(pid: int) -> Counter[str]:
    """CPU seconds of a process and its descendants, by program."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    used: Counter[str] = Counter()
    pending = [pid]
    while pending:
        one = pending.pop()
        pending += children.get(one, ())
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            used[_program_of(one)] += cpu_s(one)
    return used


def _program_of(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    marks = {"postgres": "PostgreSQL", "guardian": "guardians", "agent run": "wrappers", " api": "API"}
    marks |= {" executor": "executor"}
    return next((name for mark, name in marks.items() if mark in command), "others")


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` percent of all values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
