"""Watches whether any executor lives: without one, accepted tasks wait, and the answers of the API say so."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final, Literal

from msgspec import Struct

from wvs.background import background
from wvs.domain.states import TaskState
from wvs.postgres.pool import Pool, acquire
from wvs.queue.living import living_executors
from wvs.readmodel.rows import TaskRow
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics

COUNT_EVERY_S: Final = 1.0
_UNFINISHED: Final = frozenset({TaskState.QUEUED, TaskState.RUNNING})


class WaitingFor(Struct, frozen=True):
    """Why a task does not run. `no_executor`: no executor lives; the task runs as soon as one is started."""

    reason: Literal["no_executor"]
    detail: str


class ExecutorWatch:
    """One per process. Counts living executors once a second, so that an answer costs no query.

    An executor that has been silent for `lease_s` seconds hangs and does not count.
    """

    def __init__(self, pool: Pool, lease_s: float, metrics: Metrics) -> None:
        self._pool = pool
        self._lease_s = lease_s
        self._metrics = metrics
        self._living: int | None = None
        self._failed = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Looks once, then keeps looking while the block lasts."""
        await self._look()
        async with background(self._look_forever()):
            yield

    def waiting_for(self) -> WaitingFor | None:
        """What every accepted task waits for; None if tasks run, or if PostgreSQL has not answered yet."""
        if self._living != 0:
            return None
        return WaitingFor(
            "no_executor",
            "no executor is running on this database, so accepted tasks wait; start one: wvs executor, or wvs up",
        )

    def task_waits_for(self, task: TaskRow) -> WaitingFor | None:
        """`waiting_for` for one task: None for a task that is final."""
        return self.waiting_for() if task.state in _UNFINISHED else None

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(COUNT_EVERY_S)
            await self._look()

    async def _look(self) -> None:
        """Counts. A failure keeps the last count; only the first failure in a row is logged."""
        try:
            async with acquire(self._pool) as connection:
                self._living = await living_executors(connection, self._lease_s)
        except Exception as error:  # noqa: BLE001 - the next look is a second away
            if not self._failed:
                survived(self._metrics, "executor_watch", error, "http.executor_watch_failed")
            self._failed = True
            return
        self._failed = False
        self._metrics.executors.set(self._living)
