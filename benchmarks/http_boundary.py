"""How much CPU time the HTTP boundary costs: the same route for a small JSON body, with and without the boundary.

    python -m benchmarks.http_boundary [--requests 20000] [--connections 16] [--rounds 3]

The result is the server's CPU time per request, which does not depend on other load. Requests per second are printed
too.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uvicorn
import uvloop
from litestar import Litestar, post
from litestar.params import JSONBody

from wvs.http.app import create_app
from wvs.http.server import listen, serve
from wvs.telemetry.logs import configure_logging
from wvs.telemetry.metrics import Metrics

BODY = b'{"name":"hello","labels":{"a":"b"}}'
REQUEST = (
    b"POST /v1/hello HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Idempotency-Key: 0123456789abcdef\r\nX-Request-Id: benchmark\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    labels: dict[str, str] = {}


@post("/v1/hello", status_code=202)
async def hello(data: JSONBody[Hello]) -> dict[str, str]:
    """Answers with the name."""
    return {"hello": data.name}


def run_server(mode: str, pipe: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # every log line is formatted and written, as in production
    configure_logging("json")
    # Without our server class, uvicorn raises the signal again after a clean stop.
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_bare(pipe) if mode == "bare" else _whole(pipe))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pipe.send(usage.ru_utime + usage.ru_stime)


async def _whole(pipe: Connection) -> None:
    async def ready() -> Sequence[str]:
        return ()

    api = create_app(route_handlers=[hello], readiness=ready, draining=asyncio.Event(), metrics=Metrics())
    await serve(api, listen("127.0.0.1", 0), on_listening=lambda url: pipe.send(int(url.rsplit(":", 1)[1])))


async def _bare(pipe: Connection) -> None:
    listener = listen("127.0.0.1", 0)
    app: Any = Litestar([hello], openapi_config=None, logging_config=None)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none", http="httptools"))
    listener.listen()  # a client that connects before uvicorn accepts waits instead of failing
    pipe.send(listener.getsockname()[1])
    await server.serve(sockets=[listener])


async def load(port: int, requests: int, connections: int) -> float:
    async def one(count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202"), head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one(requests // connections) for _ in range(connections)))
    return requests / (time.perf_counter() - began)


def measure(mode: str, requests: int, connections: int) -> tuple[float, float]:
    """Requests per second, and microseconds of server CPU per request, without the cost of starting the server."""
    figures: list[tuple[float, float]] = []
    for count in (connections, requests):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=run_server, args=(mode, theirs), daemon=True)
        process.start()
        port = ours.recv()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rate = runner.run(load(port, count, connections))
        os.kill(process.pid or 0, signal.SIGINT)
        figures.append((rate, ours.recv()))
        process.join()
    (_, start_s), (rate, total_s) = figures
    return rate, (total_s - start_s) / (requests - connections) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    best_bare_us = best_us = float("inf")
    for _ in range(options.rounds):
        bare_rate, bare_us = measure("bare", options.requests, options.connections)
        rate, us = measure("whole", options.requests, options.connections)
        best_bare_us, best_us = min(best_bare_us, bare_us), min(best_us, us)
        print(
            json.dumps(
                {
                    "bare_requests_per_s": round(bare_rate),
                    "bare_cpu_us": round(bare_us, 1),
                    "whole_requests_per_s": round(rate),
                    "whole_cpu_us": round(us, 1),
                    "boundary_cpu_us": round(us - bare_us, 1),
                }
            )
        )
    # Other load only adds time, so the minimum is nearest to the true value.
    print(json.dumps({"best_bare_cpu_us": round(best_bare_us, 1), "boundary_cpu_us": round(best_us - best_bare_us, 1)}))


if __name__ == "__main__":
    main()
