"""Background work of the API process: purges old idempotency keys, refreshes gauges, checks readiness."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from itertools import product
from typing import Any, Final, Generic, TypeVar

import structlog

from wvs.background import background, stop
from wvs.domain.states import TaskKind, TaskState
from wvs.postgres.access import why_read_only
from wvs.postgres.compatibility import check_schema
from wvs.postgres.errors import SchemaTooNew, SchemaTooOld
from wvs.postgres.pool import Pool, acquire
from wvs.postgres.queries import sql
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics

PURGE_EVERY_S: Final = 300.0
_PURGE_BATCH: Final = 5_000
_PURGE: Final = sql("purge_idempotency_keys")
_QUEUE_GAUGES: Final = sql("queue_gauges")
_SESSION_GAUGES: Final = sql("session_gauges")
_FAILED_TASKS: Final = sql("failed_tasks")
_VOLUME_BRAKE: Final = sql("volume_brake")

_COUNTED: Final = (TaskState.QUEUED, TaskState.RUNNING, TaskState.FAILED)

_log = structlog.get_logger("wvs.http")


R = TypeVar("R")


class _SingleFlight(Generic[R]):
    """Runs `work` once for all concurrent callers. A caller that gives up does not cancel the work: cancelling a query
    of a stalled database takes longer than a probe may.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._work = work
        self._task: asyncio.Task[R] | None = None

    async def __call__(self) -> R:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        if self._task is not None:
            await stop(self._task)


class Upkeep:
    """Works on the pool of the process.

    `readiness` returns the reasons why the service cannot serve; an empty list means that it can. `warnings` returns
    what a person has to decide although it can. `refresh_gauges` reads the database's figures into the metrics: open
    and failed tasks, the age of the oldest queued tasks, sessions, the brake of the volume.
    """

    def __init__(self, pool: Pool, metrics: Metrics, purge_every_s: float = PURGE_EVERY_S) -> None:
        self._pool = pool
        self._metrics = metrics
        self._purge_every_s = purge_every_s
        self.readiness = _SingleFlight(self._readiness)
        self.warnings = _SingleFlight(self._warnings)
        self.refresh_gauges = _SingleFlight(self._refresh_gauges)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Purges old idempotency keys periodically while the block lasts."""
        try:
            async with background(self._purge_forever()):
                yield
        finally:
            await self.readiness.close()
            await self.warnings.close()
            await self.refresh_gauges.close()

    async def _readiness(self) -> Sequence[str]:
        try:
            async with acquire(self._pool) as connection:
                await check_schema(connection)
                read_only = await why_read_only(connection)
        except (SchemaTooOld, SchemaTooNew) as error:
            return [str(error)]
        except Exception as error:  # noqa: BLE001 - any failure is a reason not to be ready
            return [f"the database is unreachable ({type(error).__name__})"]
        return [] if read_only is None else [read_only]

    async def _warnings(self) -> Sequence[str]:
        brake = await self._brake()
        if brake is None:
            return []
        held = (
            f"the brake of the volume holds since {brake['since']:%Y-%m-%dT%H:%M:%SZ}: {brake['lost']} snapshots of "
            f"{brake['trees']} trees are missing, and {brake['unknown']} directories are unknown; "
            "read: wvs runbook volume-losses"
        )
        return [held]

    async def _brake(self) -> Any:
        async with acquire(self._pool) as connection:
            return await connection.fetchrow(_VOLUME_BRAKE)

    async def _refresh_gauges(self) -> None:
        await self._count_sessions()
        self._metrics.volume_brake.set(await self._brake() is not None)
        self._metrics.pg_pool_in_use.set(self._pool.get_size() - self._pool.get_idle_size())
        async with acquire(self._pool) as connection:
            open_tasks = await connection.fetch(_QUEUE_GAUGES)
            failed = await connection.fetch(_FAILED_TASKS)
        counts: dict[tuple[TaskKind, TaskState], int] = dict.fromkeys(product(TaskKind, _COUNTED), 0)
        ages = dict.fromkeys(TaskKind, 0.0)
        for kind, state, tasks, oldest_s in open_tasks:
            counts[TaskKind(kind), TaskState(state)] = tasks
            ages[TaskKind(kind)] = max(ages[TaskKind(kind)], oldest_s)
        for kind, tasks in failed:
            counts[TaskKind(kind), TaskState.FAILED] = tasks
        for (kind, state), tasks in counts.items():
            self._metrics.tasks.labels(kind, state).set(tasks)
        for kind, oldest_s in ages.items():
            self._metrics.task_oldest_pending_age_seconds.labels(kind).set(oldest_s)

    async def _count_sessions(self) -> None:
        async with acquire(self._pool) as connection:
            counted = {row["state"]: row["sessions"] for row in await connection.fetch(_SESSION_GAUGES)}
        for state in ("active", "expired"):
            self._metrics.sessions.labels(state).set(counted.get(state, 0))

    async def purge(self) -> int:
        """Purges the keys whose task has been final for a day. Returns how many."""
        purged = 0
        while True:
            async with acquire(self._pool) as connection:
                status = await connection.execute(_PURGE, _PURGE_BATCH)
            purged += (count := int(status.rpartition(" ")[2]))
            if count < _PURGE_BATCH:
                return purged

    async def _purge_forever(self) -> None:
        while True:
            try:
                purged = await self.purge()
                if purged:
                    _log.info("http.idempotency_keys_purged", count=purged)
            except Exception as error:  # noqa: BLE001 - counted, logged and retried
                survived(self._metrics, "idempotency_purge", error, "http.purge_failed")
            await asyncio.sleep(self._purge_every_s)
