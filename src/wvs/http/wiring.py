"""Assembles the API process: pool, write path, hints, waiters, upkeep and routes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

from litestar import Litestar
from litestar.di import Provide

from wvs.application.write_path import WritePath
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import Event
from wvs.eventlog.codec import EventMapper
from wvs.eventlog.reading.follower import check_sequence
from wvs.http.app import Api, Lifespan, create_app
from wvs.http.edge.limits import Limits
from wvs.http.live.directives import DirectiveWaiter
from wvs.http.live.executors import ExecutorWatch
from wvs.http.live.feed import Feed, FeedLimits
from wvs.http.live.tasks import TaskWaiter
from wvs.http.openapi.examples import Examples
from wvs.http.resources import (
    chains,
    current,
    directives,
    events,
    history,
    probes,
    sessions,
    snapshots,
    stream,
    tasks,
    workspaces,
)
from wvs.http.service import Service
from wvs.http.upkeep import Upkeep
from wvs.http.watermark_watch import WatermarkWatch
from wvs.http.writes import WRITE_DEPENDENCIES
from wvs.postgres.access import when_reachable
from wvs.postgres.compatibility import check_schema
from wvs.postgres.pool import Pool, acquire, close, create_pool
from wvs.postgres.reserve import DiskReserve
from wvs.projections.listings import Listings
from wvs.projections.readers import Readers
from wvs.quiesce.sessions import Sessions
from wvs.settings import Settings
from wvs.signals.hints import EVENTS, FREEZES, SESSIONS, TASKS, Hinter, Listener
from wvs.telemetry.metrics import Metrics, Program

_RESOURCES: Final = (workspaces, snapshots, current, tasks, events, history, stream, chains, sessions, directives)

ROUTES: Final = [handler for resource in _RESOURCES for handler in resource.HANDLERS]
EXAMPLES: Final[Mapping[str, Examples]] = {
    operation_id: examples for resource in (probes, *_RESOURCES) for operation_id, examples in resource.EXAMPLES.items()
}


@contextlib.asynccontextmanager
async def open_api(
    settings: Settings, database_url: str, *, metrics: Metrics | None = None, draining: asyncio.Event | None = None
) -> AsyncGenerator[Api, None]:
    """The API on a pool of its own, for `serve`. The end of the block closes the pool.

    Raises the errors of `create_pool` if the database is unreachable for `WVS_DATABASE_WAIT_S`, `SchemaTooOld` and
    `SchemaTooNew`.
    """
    metrics = metrics or Metrics(Program.API)
    open_pool = partial(create_pool, database_url, application_name="wvs-api", size=settings.pool_size)
    pool = await when_reachable(open_pool, settings.database_wait_s)
    try:
        async with acquire(pool) as connection:
            await check_schema(connection)
        hinter = Hinter(database_url, metrics.ignored_failures.labels("hint_sender").inc)
        reserve = DiskReserve(settings.data_dir)
        write_path = WritePath(pool, EventMapper(), metrics, on_commit=hints_through(hinter), reserve=reserve)
        yield build_api(settings, pool, write_path, hinter, database_url, draining=draining)
    finally:
        # All requests have ended. Whatever still holds a connection hangs in the database: do not wait for it.
        await close(pool)


def hints_through(hinter: Hinter) -> Callable[[UUID, list[Event]], None]:
    """For `WritePath(on_commit=...)`: notifies executors, waiters and event streams of each commit."""

    def on_commit(_workspace_id: UUID, _events: list[Event]) -> None:
        hinter.touch(TASKS, EVENTS)

    return on_commit


def build_api(
    settings: Settings,
    pool: Pool,
    write_path: WritePath,
    hinter: Hinter,
    database_url: str,
    *,
    draining: asyncio.Event | None = None,
    limits: Limits | None = None,
) -> Api:
    """The API with all its routes on the given pool and write path. The caller closes the pool after the lifespan.

    The lifespan checks the log's sequence (`SequenceBehindError`), sends and receives hints, and does the upkeep.
    """
    draining = draining or asyncio.Event()
    metrics = write_path.metrics
    readers, registry = Readers(pool), Sessions(pool)
    task_waiter = TaskWaiter(readers, metrics)
    directive_waiter = DirectiveWaiter(registry, metrics, draining)
    feed = Feed(pool, partial(stream.stream_entry, write_path.mapper), metrics, draining, feed_limits(settings))
    upkeep = Upkeep(pool, metrics, assumed_volume=_assumed_volume(settings))
    executors = ExecutorWatch(pool, settings.lease_s, metrics)
    watch = WatermarkWatch(pool, metrics)
    service = Service(
        write_path=write_path,
        readers=readers,
        listings=Listings(pool),
        task_waiter=task_waiter,
        volume=settings.volume_path,
        max_wait_s=settings.max_wait_s,
        draining=draining,
        sessions=registry,
        directive_waiter=directive_waiter,
        on_acknowledged=lambda: hinter.touch(FREEZES),
        feed=feed,
        executors=executors,
    )

    def on_events() -> None:
        task_waiter.hint()
        feed.hint()

    callbacks = {EVENTS: on_events, SESSIONS: directive_waiter.hint}
    listener = Listener(database_url, callbacks, metrics.ignored_failures.labels("hint_listener").inc)
    parts = (hinter, listener, task_waiter, directive_waiter, upkeep, watch, feed, executors)
    return create_app(
        route_handlers=ROUTES,
        readiness=upkeep.readiness,
        warnings=upkeep.warnings,
        draining=draining,
        metrics=metrics,
        hosts=settings.allowed_hosts,
        prefix=settings.public_prefix,
        lifespan=[_lifespan(pool, write_path, parts)],
        dependencies=_dependencies(lambda: service),
        refresh_metrics=upkeep.refresh_gauges,
        executors=executors,
        limits=limits or Limits(keep_alive_s=settings.keep_alive_s),
        examples=EXAMPLES,
    )


def _assumed_volume(settings: Settings) -> Path | None:
    return None if settings.volume else Path(os.path.realpath(settings.volume_path))


class _Running(Protocol):
    def running(self) -> AbstractAsyncContextManager[object]: ...


def _lifespan(pool: Pool, write_path: WritePath, parts: Iterable[_Running]) -> Lifespan:
    """Checks the log's sequence, runs the parts while the API serves, and closes the write path after them."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncGenerator[None, None]:
        async with pool.acquire() as connection:
            await check_sequence(connection)
        async with contextlib.AsyncExitStack() as stack:
            for part in parts:
                await stack.enter_async_context(part.running())
            yield
        await write_path.close()

    return lifespan


def _dependencies(service: Callable[[], Service]) -> dict[str, Provide]:
    def provide_service() -> Service:
        return service()

    return {"service": Provide(provide_service, sync_to_thread=False), **WRITE_DEPENDENCIES}


def document() -> dict[str, Any]:
    """The OpenAPI document of the API. Needs no database."""
    return bare_api().document()


def bare_api() -> Api:
    """All routes without a service behind them: for inspection, never for serving."""

    def never_called() -> Service:
        raise AssertionError("this API must not serve requests")

    async def ready() -> list[str]:
        return []

    return create_app(
        route_handlers=ROUTES,
        readiness=ready,
        draining=asyncio.Event(),
        metrics=Metrics(),
        dependencies=_dependencies(never_called),
        examples=EXAMPLES,
    )


def starting_api(settings: Settings, reason: Callable[[], str], draining: asyncio.Event) -> Api:
    """All routes while the database is away: what needs it is refused with `UNAVAILABLE` and the reason."""

    def unavailable() -> Service:
        raise Refused(ErrorCode.UNAVAILABLE, f"the service is starting: {reason()}")

    async def not_ready() -> list[str]:
        return [reason()]

    return create_app(
        route_handlers=ROUTES,
        readiness=not_ready,
        draining=draining,
        metrics=Metrics(Program.API),
        hosts=settings.allowed_hosts,
        dependencies=_dependencies(unavailable),
    )


def feed_limits(settings: Settings) -> FeedLimits:
    """The limits of event streams."""
    return FeedLimits(settings.event_streams, settings.event_stream_heartbeat_s, settings.event_stream_stall_s)
