"""The delay of the live stream from the commit to the client, at a steady rate of events.

    python -m benchmarks.stream [--seconds 20] [--rate 200] [--clients 1]

Each event comes from a `POST …/snapshots` or from a cancel of its task, at fixed times and on several connections. The
delay is measured from the answer to the request, which is a little after the commit; the true delay is therefore a
little longer. The delay from the sending of the request, an upper bound, is printed too. The aim is a median of at most
20 ms.
"""

import argparse
import asyncio
import json
import time
from contextlib import suppress

import uvloop

from benchmarks.commands import BODY, active_workspaces
from benchmarks.platform import api, cpu_s, database, percentile, scratch
from benchmarks.requests import Client
from wvs.domain.ids import WORKSPACE, format_id

WRITERS = 8


class Clock:
    """When each task's request was sent and answered, and when each client saw its event."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, str], float] = {}
        self.answered: dict[tuple[str, str], float] = {}
        self.seen: list[tuple[tuple[str, str], float]] = []
        self._more = asyncio.Event()

    def see(self, key: tuple[str, str], at: float) -> None:
        """Notes that a client received an event."""
        self.seen.append((key, at))
        self._more.set()

    async def until_seen(self, count: int) -> None:
        """Waits until clients have received `count` events."""
        while len(self.seen) < count:
            self._more.clear()
            await self._more.wait()


async def watch(host: str, port: int, clock: Clock, ready: asyncio.Event) -> None:
    """Notes when each event arrives."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET /v1/events/stream HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    ready.set()
    with suppress(asyncio.IncompleteReadError):
        while True:
            line = await reader.readuntil(b"\n")
            if line.startswith(b"data: "):
                now = time.perf_counter()
                event = json.loads(line[6:])
                clock.see((event["type"], event["data"]["task_id"]), now)


async def write(url: str, workspace: str, times: list[float], clock: Clock) -> None:
    """Causes one event at each of the times: it requests a snapshot and cancels it, in turn."""
    task = ""
    async with Client(url) as client:
        for number, at in enumerate(times):
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            sent = time.perf_counter()
            if number % 2 == 0:
                answer = await client.post_json(f"/v1/workspaces/{workspace}/snapshots", BODY)
                task = answer["task"]["id"]
                key = ("snapshot.requested.v1", task)
            else:
                await client.post_json(f"/v1/tasks/{task}/cancel", b"{}")
                key = ("task.cancelled.v1", task)
            clock.answered[key], clock.sent[key] = time.perf_counter(), sent


async def measure(url: str, database_url: str, seconds: float, rate: int, clients: int) -> Clock:
    """Causes events for `seconds` while `clients` streams are open."""
    workspaces = [format_id(WORKSPACE, one) for one in await active_workspaces(database_url, WRITERS)]
    clock, host, port = Clock(), "127.0.0.1", int(url.rpartition(":")[2])
    ready = [asyncio.Event() for _ in range(clients)]
    watching = [asyncio.create_task(watch(host, port, clock, one)) for one in ready]
    await asyncio.gather(*(one.wait() for one in ready))
    began, count = time.perf_counter() + 0.5, int(seconds * rate)
    times = [began + n / rate for n in range(count)]
    await asyncio.gather(*(write(url, workspace, times[n::WRITERS], clock) for n, workspace in enumerate(workspaces)))
    with suppress(TimeoutError):
        async with asyncio.timeout(30):
            await clock.until_seen(count * clients)
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return clock


def report(clock: Clock, clients: int, cpu: float, took_s: float) -> None:
    """Prints the percentiles, and how many of the expected events arrived."""
    expected = len(clock.answered) * clients
    rate = len(clock.answered) / took_s
    print(f"{len(clock.seen)} of {expected} events seen, {rate:.0f} events/s, API {cpu:.2f} CPUs")
    for name, since in (("from the answer (commit)", clock.answered), ("from sending the request", clock.sent)):
        delays = [(seen - since[key]) * 1000 for key, seen in clock.seen]
        figures = ", ".join(f"p{percent} {percentile(delays, percent):.1f} ms" for percent in (50, 90, 99))
        print(f"  {name}: {figures}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--clients", type=int, default=1)
    wanted = parser.parse_args()
    with scratch() as directory, database(directory) as database_url, api(database_url, directory) as (url, pid):
        before, began = cpu_s(pid), time.perf_counter()
        clock = uvloop.run(measure(url, database_url, wanted.seconds, wanted.rate, wanted.clients))
        took_s = time.perf_counter() - began
        report(clock, wanted.clients, (cpu_s(pid) - before) / took_s, wanted.seconds)


if __name__ == "__main__":
    main()
