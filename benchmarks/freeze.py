"""How long a freeze stops the agents, how long a snapshot takes, and how much CPU 500 idle sessions cost the API.

    python -m benchmarks.freeze [--snapshots 200] [--sessions 500]

Needs root: the volume is a btrfs file system of its own, in memory. Each agent is a program under `wvsctl agent run`
that notes when it did not run, and writes a file a hundred times a second. The window of a freeze begins when the first
agent stops and ends when the last one resumes. Aims: with one agent p50 at most 25 ms and p95 at most 50 ms, end to end
p50 at most 100 ms; with 20 agents at most twice that. The last lines compare 20 agents with one in the same run. The
sessions in one process show how much of the time the service and the protocol need.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
from msgspec import Struct
from tests.integration.agent.docker_engine import DockerEngine
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable

from benchmarks.platform import api, cpu_by_program, cpu_s, database, percentile, scratch, up
from benchmarks.requests import Client
from benchmarks.snapshot import grow
from wvs.agent.hooks import Hooks
from wvs.agent.protocol import Tree
from wvs.agent.registration import open_session
from wvs.agent.session import Session
from wvs.domain.ids import WORKSPACE, format_id

AGENT = """
import json, os, signal, sys, time
gaps, ending = [], []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
open("ready-" + sys.argv[2], "w").close()
last, turn = time.monotonic(), 0
while not ending:
    time.sleep(0.001)
    turn += 1
    if turn % 10 == 0:
        with open("count-" + sys.argv[2], "w") as file:
            file.write(str(last))
    now = time.monotonic()
    if now - last > 0.003:
        gaps.append((last, now))
    last = now
json.dump(gaps, open(sys.argv[1], "w"))
"""
FILES = 100
WARM_UP = 10
IDLE_S = 30.0

Gap = tuple[float, float]


class SnapshotTimes(Struct, frozen=True):
    """When a client requested a snapshot and got the answer, on CLOCK_MONOTONIC, like the agents' gaps."""

    requested: float
    answered: float


@contextlib.contextmanager
def agents(url: str, workspace: str, live: Path, directory: Path, number: int) -> Iterator[list[Path]]:
    """Runs `number` programs under `wvsctl agent run`; yields the files to which they write their gaps on exit."""
    notes = [directory / f"gaps-{n}" for n in range(number)]
    run = [sys.executable, "-m", "wvs.cli.wvsctl", "--url", url, "agent", "run", "-w", workspace, "--"]
    started = [
        subprocess.Popen([*run, sys.executable, "-c", AGENT, str(note), str(n)], stdin=subprocess.DEVNULL)
        for n, note in enumerate(notes)
    ]
    try:
        until = time.monotonic() + 120
        while not all((live / f"ready-{n}").exists() for n in range(number)):
            if time.monotonic() > until:
                raise RuntimeError("the agents did not start within 120 s")
            time.sleep(0.05)
        yield notes
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(60)


@contextlib.contextmanager
def container(url: str, workspace: str, live: Path, directory: Path, _number: int) -> Iterator[list[Path]]:
    """Like `agents`, for one program in a container under `wvsctl agent attach`."""
    note = directory / "gaps-0"
    (directory / "docker").mkdir()
    engine = DockerEngine(directory / "docker")
    try:
        mounts = [
            f"--mount=type=bind,source={place},target={target}" for place, target in ((live, "/work"), (directory,) * 2)
        ]
        name = engine.start(sys.executable, "-c", AGENT, str(note), "0", options=(*mounts, "--workdir=/work"))
        attach = [sys.executable, "-m", "wvs.cli.wvsctl", "--url", url, "agent", "attach", "-w", workspace]
        process = subprocess.Popen([*attach, "--container", name], stdin=subprocess.DEVNULL, env=engine.environment)
        until = time.monotonic() + 120
        while not (live / "ready-0").exists() or not asyncio.run(has_session(url, workspace)):
            if time.monotonic() > until:
                raise RuntimeError("the container did not start within 120 s")
            time.sleep(0.05)
        yield [note]
        engine.call("stop", name)
        process.wait(60)
    finally:
        engine.close()


async def has_session(url: str, workspace: str) -> bool:
    async with Client(url) as client:
        return bool(json.loads(await client.get(f"/v1/workspaces/{workspace}/sessions"))["items"])


async def create_snapshots(url: str, workspace: str, snapshots: int) -> list[SnapshotTimes]:
    times: list[SnapshotTimes] = []
    async with Client(url) as client:
        for number in range(snapshots):
            requested = time.monotonic()
            answer = await client.post_json(f"/v1/workspaces/{workspace}/snapshots", b"{}", prefer="wait=30")
            times.append(SnapshotTimes(requested, time.monotonic()))
            if answer["task"]["state"] != "succeeded":
                raise RuntimeError(f"snapshot {number}: {answer['task']}")
            await asyncio.sleep(0.05)
    return times[WARM_UP:]


def windows_ms(gaps: list[list[Gap]], snapshots: list[SnapshotTimes]) -> list[float]:
    """For each snapshot, the time from the first agent's stop to the last agent's resume.

    An agent was frozen during the longest of its gaps between request and answer.
    """
    windows: list[float] = []
    for snapshot in snapshots:
        frozen = [longest(agent, snapshot) for agent in gaps]
        windows.append((max(end for _, end in frozen) - min(begin for begin, _ in frozen)) * 1e3)
    return windows


def longest(gaps: list[Gap], snapshot: SnapshotTimes) -> Gap:
    inside = [(begin, end) for begin, end in gaps if begin < snapshot.answered and end > snapshot.requested]
    if not inside:
        raise RuntimeError("an agent was not frozen for a snapshot")
    return max(inside, key=lambda gap: gap[1] - gap[0])


def bench_freeze(
    directory: Path, snapshots: int, number: int, start: Callable[..., AbstractContextManager[list[Path]]] = agents
) -> dict[str, float]:
    """`start` runs the agents: in `number` wrappers, or in a container."""
    volume = directory / "btrfs" / f"volume-{start.__name__}-{number}"
    with scratch() as home, up(home, WVS_VOLUME=str(volume)) as (url, _pid):
        workspace, live = asyncio.run(new_workspace(url))
        grow(live, FILES)
        with start(url, workspace, live, home, number) as notes:
            before = cpu_by_program(os.getpid())
            snapshot_times = asyncio.run(create_snapshots(url, workspace, snapshots + WARM_UP))
            used = cpu_by_program(os.getpid())
        windows = windows_ms([json.loads(note.read_text()) for note in notes], snapshot_times)
    whole = [(snapshot.answered - snapshot.requested) * 1e3 for snapshot in snapshot_times]
    medians: dict[str, float] = {}
    for name, times in (("freeze window", windows), ("end to end over HTTP", whole)):
        print(f"{number:3} agents  {name:22} p50 {percentile(times, 50):6.1f} ms   p95 {percentile(times, 95):6.1f} ms")
        medians[name] = percentile(times, 50)
    for name in ("wrappers", "guardians", "API", "executor", "PostgreSQL"):
        spent_ms = (used[name] - before[name]) / (snapshots + WARM_UP) * 1e3
        print(f"{number:3} agents  CPU of a snapshot, {name:12} {spent_ms:6.1f} ms")
    return medians


class InProcessSession:
    """A session in this process: when it was frozen and when it resumed, on CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.gaps: list[Gap] = []
        self._frozen = 0.0

    def hooks(self) -> Hooks:
        return Hooks(on_freeze=self._freeze, on_thaw=self._thaw, on_switch=self._switch)

    async def _freeze(self) -> None:
        self._frozen = time.monotonic()

    async def _thaw(self) -> None:
        self.gaps.append((self._frozen, time.monotonic()))

    async def _switch(self, _tree: Tree) -> None:
        raise RuntimeError("the session must switch, although no current_set was requested")


async def create_snapshots_of_sessions(
    url: str, workspace: str, snapshots: int, number: int
) -> tuple[list[SnapshotTimes], list[InProcessSession]]:
    sessions = [InProcessSession() for _ in range(number)]
    async with contextlib.AsyncExitStack() as stack:
        for session in sessions:
            await stack.enter_async_context(await open_session(url, workspace, "in-process", session.hooks()))
        return await create_snapshots(url, workspace, snapshots + WARM_UP), sessions


def bench_protocol(directory: Path, snapshots: int, number: int) -> None:
    """The same without wrappers and cgroups: the time that the service and the protocol need."""
    volume = directory / "btrfs" / f"volume-in-process-{number}"
    with scratch() as home, up(home, WVS_VOLUME=str(volume)) as (url, _pid):
        workspace, live = asyncio.run(new_workspace(url))
        grow(live, FILES)
        times, sessions = asyncio.run(create_snapshots_of_sessions(url, workspace, snapshots, number))
    windows = windows_ms([session.gaps for session in sessions], times)
    print(
        f"{number:3} sessions in one process: window    p50 {percentile(windows, 50):6.1f} ms   "
        f"p95 {percentile(windows, 95):6.1f} ms"
    )


async def new_workspace(url: str) -> tuple[str, Path]:
    async with Client(url) as client:
        made = await client.post_json("/v1/workspaces", b'{"name":"bench"}', prefer="wait=30")
    return made["workspace"]["id"], Path(made["workspace"]["path"])


def bench_idle(sessions: int) -> None:
    with scratch() as home, database(home) as database_url:
        workspace_id = uuid.uuid4()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO wvs.workspaces (id, name, state, labels, live_tree, epoch, created_at) "
                "VALUES (%s, 'idle', 'active', '{}', 'tree', 1, now())",
                [workspace_id],
            )
            connection.execute("INSERT INTO wvs.lanes (workspace_id) VALUES (%s)", [workspace_id])
        volume, workspace = home / "volume", format_id(WORKSPACE, workspace_id)
        (volume / workspace / "live" / "root").mkdir(parents=True)
        with api(database_url, home, WVS_VOLUME=str(volume)) as (url, pid):
            idle = asyncio.run(cost(url, pid, workspace, 0))
            busy = asyncio.run(cost(url, pid, workspace, sessions))
            with psycopg.connect(database_url) as connection:
                query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'wvs%'"
                row = connection.execute(query).fetchone()
    print(
        f"{sessions} idle sessions: API at {busy * 100:.1f} % of one CPU ({idle * 100:.1f} % without any), "
        f"{row and row[0]} connections to PostgreSQL"
    )


async def cost(url: str, pid: int, workspace: str, sessions: int) -> float:
    """Processor seconds of the API per second while that many sessions wait for directives."""

    async def nothing(*_: object) -> None:
        pass

    hooks = Hooks(on_freeze=nothing, on_thaw=nothing, on_switch=nothing)
    joined: list[Session] = []
    for _ in range(sessions):
        session = await open_session(url, workspace, "idle", hooks)
        session.follow()
        joined.append(session)
    await asyncio.sleep(3)
    began, used = time.monotonic(), cpu_s(pid)
    await asyncio.sleep(IDLE_S)
    share = (cpu_s(pid) - used) / (time.monotonic() - began)
    for session in joined:
        await session.stop_following()
        await session.leave()
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=500)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="wvs-bench-mounts-"))
    namespace = Namespace(directory)
    try:
        filesystems.btrfs(namespace, "btrfs", 3000)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; {options.snapshots} snapshots of {FILES} files")
        medians: list[dict[str, float]] = []
        for number in (1, 20):
            medians.append(bench_freeze(directory, options.snapshots, number))
            bench_protocol(directory, options.snapshots, number)
        print("one agent in a container under agent attach:")
        with contextlib.suppress(Unavailable):
            in_container = bench_freeze(directory, options.snapshots, 1, container)
            for name, of_one in medians[0].items():
                print(f" in a container against agent run: {name:22} {in_container[name] / of_one:4.1f} x")
        for name, of_one in medians[0].items():
            print(f" 20 agents against one: {name:22} {medians[1][name] / of_one:4.1f} x")
    except Unavailable as reason:
        raise SystemExit(str(reason)) from None
    finally:
        namespace.close()
        directory.rmdir()
    bench_idle(options.sessions)


if __name__ == "__main__":
    main()
