"""Waits for tasks to become final: one query for all waiting requests, after each hint and at least every 0.5 s."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final
from uuid import UUID

import structlog

from wvs.background import background
from wvs.projections.readers import Readers
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics

POLL_S: Final = 0.5
_COALESCE_S: Final = 0.002

_log = structlog.get_logger("wvs.http")


class TaskWaiter:
    """One per process. All waiting requests share its query, so that a thousand of them cost as much as one."""

    def __init__(self, readers: Readers, metrics: Metrics, poll_s: float = POLL_S) -> None:
        self._readers = readers
        self._metrics = metrics
        self._poll_s = poll_s
        self._waiting: dict[UUID, set[asyncio.Future[None]]] = {}
        self._hint = asyncio.Event()

    def hint(self) -> None:
        """Makes the waiter check at once, because something was committed. Never blocks."""
        self._hint.set()

    async def until_final(self, task_id: UUID) -> None:
        """Returns once the task is succeeded, failed or cancelled. The caller sets the time limit."""
        final: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(task_id, set()).add(final)
        self.hint()
        try:
            await final
        finally:
            self._forget(task_id, final)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Checks the waiting tasks while the block lasts."""
        async with background(self._run()):
            yield

    def _forget(self, task_id: UUID, final: asyncio.Future[None]) -> None:
        others = self._waiting.get(task_id)
        if others is None:
            return
        others.discard(final)
        if not others:
            del self._waiting[task_id]

    async def _run(self) -> None:
        while True:
            await self._wait_for_hint()
            if not self._waiting:
                continue
            try:
                final_ids = await self._readers.final_among(list(self._waiting))
            except Exception as error:  # noqa: BLE001 - the next round tries again; every request has a limit
                survived(self._metrics, "task_waiter", error, "http.task_wait_failed")
                await asyncio.sleep(self._poll_s)
                continue
            for task_id in final_ids:
                for final in self._waiting.get(task_id, ()):
                    if not final.done():
                        final.set_result(None)

    async def _wait_for_hint(self) -> None:
        """Returns after a hint, or after the poll time if a request waits. A burst of hints causes one query."""
        try:
            async with asyncio.timeout(self._poll_s if self._waiting else None):
                await self._hint.wait()
            await asyncio.sleep(_COALESCE_S)
        except TimeoutError:
            pass
        self._hint.clear()
