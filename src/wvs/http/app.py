"""Assembles the HTTP API: Litestar with the given routes inside the boundary."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any

import msgspec
from litestar import Litestar, Request
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from wvs.http.edge.boundary import Boundary
from wvs.http.edge.hosts import LOOPBACK_HOSTS, HostRule
from wvs.http.edge.limits import Limits
from wvs.http.edge.traffic import Traffic
from wvs.http.live.executors import ExecutorWatch
from wvs.http.openapi.document import describe, query_parameters_of
from wvs.http.openapi.examples import Examples
from wvs.http.openapi.pages import schema_router
from wvs.http.problems.problem import EXCEPTION_HANDLERS
from wvs.http.requests.query import QueryParametersOf, admission
from wvs.http.requests.strict_json import StrictRequest, require_closed_bodies
from wvs.http.resources.probes import Probes, Readiness, Refresh, probe_router
from wvs.http.wire.context import RequestContext, context_of
from wvs.telemetry.metrics import Metrics

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


class Api(msgspec.Struct, frozen=True):
    """The whole API. A server runs `asgi`. Setting `draining` ends every long wait and makes `/readyz` fail."""

    asgi: Boundary
    litestar: Litestar
    draining: asyncio.Event
    document: Callable[[], dict[str, Any]]


def create_app(  # noqa: PLR0913 - everything is wired here, and every argument is named
    *,
    route_handlers: Sequence[ControllerRouterHandler],
    readiness: Readiness,
    draining: asyncio.Event,
    metrics: Metrics,
    hosts: Iterable[str] = LOOPBACK_HOSTS,
    prefix: str = "",
    lifespan: Sequence[Lifespan] = (),
    dependencies: Mapping[str, Provide] | None = None,
    refresh_metrics: Refresh | None = None,
    executors: ExecutorWatch | None = None,
    warnings: Readiness | None = None,
    limits: Limits | None = None,
    examples: Mapping[str, Examples] | None = None,
) -> Api:
    """The API with these resource routes.

    Handlers can declare `context: RequestContext`, `draining: asyncio.Event` and the names in `dependencies`.
    `examples` are the examples of the OpenAPI document, by operation id. The context managers of `lifespan` are
    entered in order before the first request and left in reverse order after the last one. `prefix` is the path under
    which a proxy serves the API.

    Raises `ValueError` if `hosts` contains a malformed host, and Litestar's `ImproperlyConfiguredException` if the
    routes conflict.
    """
    handlers = [
        probe_router(Probes(readiness, draining, metrics, refresh_metrics, executors, warnings)),
        *route_handlers,
    ]
    provided = {**_own_dependencies(draining), **(dependencies or {})}

    @cache
    def document() -> dict[str, Any]:
        return describe(handlers, provided, examples or {})

    @cache
    def query_parameters() -> QueryParametersOf:
        return query_parameters_of(document())

    litestar = Litestar(
        route_handlers=[*handlers, schema_router(document)],
        before_request=admission(query_parameters),
        dependencies=provided,
        exception_handlers=dict(EXCEPTION_HANDLERS),
        lifespan=list(lifespan),
        logging_config=None,
        openapi_config=None,
        request_class=StrictRequest,
        request_max_body_size=None,
    )
    require_closed_bodies(litestar)
    asgi = Boundary(
        litestar,  # pyright: ignore[reportArgumentType] - Litestar declares the same ASGI types differently
        hosts=HostRule(hosts),
        prefix=prefix,
        limits=limits or Limits(),
        traffic=Traffic(metrics),
    )
    return Api(asgi=asgi, litestar=litestar, draining=draining, document=document)


def _own_dependencies(draining: asyncio.Event) -> dict[str, Provide]:
    def provide_draining() -> asyncio.Event:
        return draining

    def provide_context(request: Request[Any, Any, Any]) -> RequestContext:
        return context_of(request)

    return {
        "draining": Provide(provide_draining, sync_to_thread=False),
        "context": Provide(provide_context, sync_to_thread=False),
    }
