"""A real server process for the tests: `served_app.py LIMITS GRACE_S`, with the limits as JSON."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence

import msgspec
import uvloop
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response import Stream

from wvs.http.app import create_app
from wvs.http.edge.limits import Limits
from wvs.http.openapi.responses import problem_responses
from wvs.http.server import listen, serve
from wvs.http.wire.context import RequestContext
from wvs.telemetry.logs import configure_logging
from wvs.telemetry.metrics import Metrics


class Thing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


@post("/v1/things", status_code=202, operation_id="create", responses=problem_responses())
async def create(data: JSONBody[Thing], context: NamedDependency[RequestContext]) -> dict[str, str]:
    """Returns the name and the request id."""
    return {"name": data.name, "request_id": context.request_id}


@get("/v1/slow", operation_id="slow", responses=problem_responses())
async def slow(seconds: float) -> dict[str, str]:
    """Answers after `seconds`, even while the service drains."""
    await asyncio.sleep(seconds)
    return {"slow": "done"}


@get("/v1/stream", operation_id="stream", responses=problem_responses())
async def stream(draining: NamedDependency[asyncio.Event]) -> Stream:
    """Sends one event, then waits until the service drains."""

    async def events() -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await draining.wait()

    return Stream(events(), media_type="text/event-stream")


@get("/v1/crash", operation_id="crash", responses=problem_responses())
async def crash() -> None:
    """Crashes before its answer."""
    raise ZeroDivisionError("the secret")


@get("/v1/crash-in-answer", operation_id="crashInAnswer", responses=problem_responses())
async def crash_in_answer() -> Stream:
    """Crashes after it has sent half of its answer."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        raise ZeroDivisionError("the secret")

    return Stream(parts())


def announce(url: str) -> None:
    sys.stdout.write(f"ready {url}\n")
    sys.stdout.flush()


async def main(limits: Limits, grace_s: int) -> None:
    async def ready() -> Sequence[str]:
        return ()

    api = create_app(
        route_handlers=[create, slow, stream, crash, crash_in_answer],
        readiness=ready,
        draining=asyncio.Event(),
        metrics=Metrics(),
        limits=limits,
    )
    await serve(api, listen("127.0.0.1", 0), on_listening=announce, grace_s=grace_s)


if __name__ == "__main__":
    configure_logging("json")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(msgspec.json.decode(sys.argv[1], type=Limits), int(sys.argv[2])))
