"""An API with test routes, called in this process without a server."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated

import httpx
import msgspec
import pytest
import structlog
from litestar import Request, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from wvs.domain.errors import ErrorCode, Refused
from wvs.http import server
from wvs.http.app import Api, create_app
from wvs.http.edge import traffic
from wvs.http.openapi.responses import problem_responses
from wvs.http.problems import problem
from wvs.http.resources import probes
from wvs.http.wire.context import RequestContext
from wvs.http.wire.cursors import CursorText, Limit
from wvs.telemetry.metrics import Metrics


class NewThing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=8)]
    count: int = 0
    labels: dict[str, str] = {}


class Why(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str | None = None


class Seen(msgspec.Struct, frozen=True):
    """The arguments that a handler received."""

    name: str
    actor: str
    request_id: str
    trace_id: str
    idempotency_key: str | None


@post("/v1/things", status_code=202, operation_id="createThing", responses=problem_responses())
async def create_thing(data: JSONBody[NewThing], context: NamedDependency[RequestContext]) -> Seen:
    """Creates a thing."""
    return Seen(data.name, context.actor, context.request_id, context.trace_id, context.idempotency_key)


@post("/v1/things/{thing_id:str}/disable", status_code=200, operation_id="disableThing", responses=problem_responses())
async def disable_thing(thing_id: FromPath[str], data: JSONBody[Why | None] = None) -> dict[str, str]:
    """Disables a thing."""
    return {"id": thing_id, "reason": "none" if data is None else str(data.reason)}


@get("/v1/things", operation_id="listThings", responses=problem_responses(ErrorCode.INVALID_CURSOR))
async def list_things(
    limit: Limit = 50,
    cursor: CursorText = None,
    wanted_state: Annotated[str | None, QueryParameter(name="state")] = None,
) -> dict[str, str]:
    """Lists things."""
    return {"limit": str(limit), "cursor": str(cursor), "state": str(wanted_state)}


@delete(
    "/v1/things/{thing_id:str}",
    status_code=202,
    operation_id="dropThing",
    responses=problem_responses(ErrorCode.SNAPSHOT_IN_USE),
)
async def drop_thing(thing_id: FromPath[str]) -> None:
    """Refuses to drop a thing."""
    raise Refused(ErrorCode.SNAPSHOT_IN_USE, f"{thing_id} is current", blockers=[{"kind": "current"}])


@get("/v1/crash", operation_id="crash", responses=problem_responses())
async def crash(request: Request[None, None, State]) -> None:
    """Crashes."""
    raise ZeroDivisionError(f"the secret of {request.url}")


@get("/v1/unavailable", operation_id="beUnavailable", responses=problem_responses())
async def be_unavailable() -> None:
    """Has lost its database."""
    raise ConnectionResetError("secret host")


class Readiness:
    """A readiness check whose result a test sets."""

    def __init__(self) -> None:
        self.reasons: Sequence[str] | Exception = ()

    async def __call__(self) -> Sequence[str]:
        if isinstance(self.reasons, Exception):
            raise self.reasons
        return self.reasons


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def api(readiness: Readiness, metrics: Metrics) -> Api:
    return create_app(
        route_handlers=[create_thing, disable_thing, list_things, drop_thing, crash, be_unavailable],
        readiness=readiness,
        draining=asyncio.Event(),
        metrics=metrics,
    )


@pytest.fixture
async def client(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(api.asgi)  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8787") as opened:
        yield opened


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> "Iterator[list[structlog.typing.EventDict]]":
    """Every log event of the test, with the fields of the log context."""
    for module in (probes, problem, server, traffic):
        # A logger that another test has used may have kept that test's configuration.
        monkeypatch.setattr(module, "_log", structlog.get_logger("wvs.http"))
    before = structlog.get_config()
    captured = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, captured], cache_logger_on_first_use=False)
    yield captured.entries
    structlog.configure(**before)
