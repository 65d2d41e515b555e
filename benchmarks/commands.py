"""Commands per second over HTTP, compared with bare calls of the SQL function that write the same rows.

    python -m benchmarks.commands [--commands 4800] [--connections 16] [--rounds 3]

The command is `POST …/snapshots` in active workspaces. The bare calls write the same rows as the API, on as many
connections; the write path decides them beforehand, outside the measured time. The aim is a ratio of at least 0.4.
"""

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from unittest.mock import patch
from uuid import UUID

import uvloop

from benchmarks.filling import Filler
from benchmarks.platform import api, cpu_s, database, scratch
from benchmarks.requests import Client
from wvs.application import write_path
from wvs.application.write_path import Origin, Reply, WritePath
from wvs.domain.commands import CreateSnapshot
from wvs.domain.ids import WORKSPACE, format_id
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.recorder import CommandWrite, CommitResult, IdempotencyKey, Outcome, Show, record
from wvs.postgres.pool import Connection, connect, create_pool
from wvs.telemetry.metrics import Metrics

BODY = b'{"message":"nightly","labels":{"run":"7"}}'
PER_WORKSPACE = 50  # below the bound of 100 queued tasks


async def active_workspaces(url: str, count: int) -> list[UUID]:
    """New workspaces that accept requests for snapshots."""
    connection = await connect(url, application_name="wvs-bench")
    try:
        fillers = [Filler(connection, f"w-{uuid.uuid4().hex[:20]}") for _ in range(count)]
        for filler in fillers:
            await filler.create()
            await filler.flush()
    finally:
        await connection.close()
    return [filler.workspace_id for filler in fillers]


async def over_http(url: str, database_url: str, commands: int, connections: int) -> float:
    """Commands per second through the API."""
    workspaces = await active_workspaces(database_url, commands // PER_WORKSPACE)
    paths = [f"/v1/workspaces/{format_id(WORKSPACE, workspace)}/snapshots" for workspace in workspaces]

    async def one(mine: list[str]) -> None:
        async with Client(url) as client:
            for _ in range(PER_WORKSPACE):
                for path in mine:
                    await client.post(path, BODY)

    began = time.perf_counter()
    await asyncio.gather(*(one(paths[n::connections]) for n in range(connections)))
    return commands / (time.perf_counter() - began)


async def decided(url: str, workspaces: list[UUID]) -> dict[UUID, list[CommandWrite]]:
    """What the write path would write for `PER_WORKSPACE` snapshots in each workspace."""
    writes: dict[UUID, list[CommandWrite]] = {workspace: [] for workspace in workspaces}

    async def keep(_connection: object, write: CommandWrite) -> CommitResult:
        writes[write.workspace_id].append(write)
        return CommitResult(Outcome.COMMITTED, None, write.status, None)

    pool = await create_pool(url, application_name="wvs-bench", size=2)
    path = WritePath(pool, EventMapper(), Metrics())
    with patch.object(write_path, "record", keep):
        for workspace in workspaces:
            await path.load(workspace)
            for command in snapshots():
                await path.execute(workspace, command[0], at=command[1], origin=command[2], reply=command[3])
    await pool.close()
    return writes


def snapshots() -> Iterator[tuple[CreateSnapshot, datetime, Origin, Reply]]:
    """Commands as the route creates them, each with its time, its origin, and a reply with a key."""
    for _ in range(PER_WORKSPACE):
        snapshot_id, task_id, key = uuid.uuid4(), uuid.uuid4(), uuid.uuid4().hex
        show = (202, Show(snapshot=snapshot_id, task=task_id))
        reply = Reply(
            lambda _events, _workspace, show=show: show,
            IdempotencyKey("anonymous createSnapshot", key, sha256(key.encode()).digest()),
        )
        origin = Origin("anonymous", f"req-{key}", key)
        yield CreateSnapshot(snapshot_id, task_id, "nightly", {"run": "7"}), datetime.now(UTC), origin, reply


async def bare(url: str, commands: int, connections: int) -> float:
    """Commands per second as bare calls of `wvs.commit_command_v2`."""
    workspaces = await active_workspaces(url, commands // PER_WORKSPACE)
    writes = await decided(url, workspaces)
    opened = [await connect(url, application_name="wvs-bench") for _ in range(connections)]

    async def one(connection: Connection, mine: list[UUID]) -> None:
        for number in range(PER_WORKSPACE):
            for workspace in mine:
                recorded = await record(connection, writes[workspace][number])
                if recorded.outcome is not Outcome.COMMITTED:
                    raise RuntimeError(f"not committed: {recorded}")

    began = time.perf_counter()
    await asyncio.gather(*(one(connection, workspaces[n::connections]) for n, connection in enumerate(opened)))
    elapsed_s = time.perf_counter() - began
    for connection in opened:
        await connection.close()
    return commands / elapsed_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=4_800)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ratios: list[float] = []
    with scratch() as directory, database(directory) as url:
        settings = {"WVS_POOL_SIZE": str(options.connections)}
        with api(url, directory, **settings) as (served, pid):
            for number in range(options.rounds + 1):
                floor = uvloop.run(bare(url, options.commands, options.connections))
                used_s = cpu_s(pid)
                rate = uvloop.run(over_http(served, url, options.commands, options.connections))
                api_us = (cpu_s(pid) - used_s) / options.commands * 1e6
                if number == 0:
                    continue  # everything is cold
                ratios.append(rate / floor)
                print(
                    f"over HTTP {rate:6.0f}/s   bare calls {floor:6.0f}/s   ratio {rate / floor:.2f}   "
                    f"API's CPU {api_us:.0f} µs a command"
                )
    print(f"median ratio {statistics.median(ratios):.2f} at {options.connections} connections (aim: at least 0.4)")


if __name__ == "__main__":
    main()
