"""Waiting for directives: one query for all sessions that wait, on a hint or at least every second."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final
from uuid import UUID

import structlog

from wvs.quiesce.sessions import Sessions
from wvs.telemetry.metrics import Metrics

POLL_S: Final = 1.0

_log = structlog.get_logger("wvs.http")


class DirectiveWaiter:
    """One per process. Five hundred idle sessions cost one query a second, and none of them a connection."""

    def __init__(self, sessions: Sessions, metrics: Metrics, poll_s: float = POLL_S) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._poll_s = poll_s
        self._waiting: dict[asyncio.Future[None], tuple[UUID, int]] = {}
        self._hint = asyncio.Event()

    def hint(self) -> None:
        """There may be new directives: look now. Never blocks."""
        self._hint.set()

    async def until_changed(self, session_id: UUID, seen: int) -> None:
        """Returns once the session's newest directive has another number than `seen`."""
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[changed] = (session_id, seen)
        self.hint()  # what changed between the caller's look and now would otherwise wait for the poll
        try:
            await changed
        finally:
            self._waiting.pop(changed, None)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Looks while the block lasts."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hint.wait(), self._poll_s if self._waiting else None)
            self._hint.clear()
            if not self._waiting:
                continue
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - a look that failed is repeated; whoever waits has a limit
                self._metrics.ignored_failures.labels("directive_waiter").inc()
                _log.warning("http.directive_wait_failed", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(self._poll_s)

    async def _look(self) -> None:
        numbers = await self._sessions.numbers(list({session_id for session_id, _ in self._waiting.values()}))
        for changed, (session_id, seen) in self._waiting.items():
            if numbers.get(session_id) != seen and not changed.done():
                changed.set_result(None)
