"""Waits for directives: one query for all waiting sessions, after each hint and at least every second."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Final, TypeAlias
from uuid import UUID

import structlog
from msgspec.structs import replace

from wvs.background import background
from wvs.quiesce.sessions import Directive, Sessions
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics

POLL_S: Final = 1.0
_ACKNOWLEDGEMENT_S: Final = 0.0003
"""Roughly the time that the service needs to process one acknowledgement."""
_MAX_PAUSE_S: Final = 0.1

_log = structlog.get_logger("wvs.http")


Changed: TypeAlias = asyncio.Future[Directive | None]
"""The new directive; None if the caller has to read it itself; cancelled when the service drains."""


class DirectiveWaiter:
    """One per process. Five hundred idle sessions cost one query per second and no database connection of their own."""

    def __init__(self, sessions: Sessions, metrics: Metrics, draining: asyncio.Event, poll_s: float = POLL_S) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._draining = draining
        self._poll_s = poll_s
        self._waiting: dict[Changed, tuple[UUID, int]] = {}
        self._hint = asyncio.Event()

    def hint(self) -> None:
        """Makes the waiter check at once, because there may be new directives. Never blocks."""
        self._hint.set()

    @contextlib.contextmanager
    def watching(self, session_id: UUID, seen: int) -> Generator[Changed]:
        """A future that is done once the session's newest directive has a greater number than `seen`.

        Read the current directive inside the block: the future reports every change after that read.
        """
        changed: Changed = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self.hint()  # without waiting sessions the loop does not poll
        self._waiting[changed] = (session_id, seen)
        if self._draining.is_set():
            changed.cancel()
        try:
            yield changed
        finally:
            self._waiting.pop(changed, None)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Checks for new directives while the block lasts."""
        async with background(self._run(), self._end_when_draining()):
            yield

    async def _end_when_draining(self) -> None:
        # One task for all waits: a task per wait would be the larger part of the cost of a wait.
        await self._draining.wait()
        for changed in self._waiting:
            changed.cancel()

    async def _run(self) -> None:
        while True:
            # Not wait_for: before Python 3.12 it loses a cancellation that arrives together with the hint.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s if self._waiting else None):
                    await self._hint.wait()
            self._hint.clear()
            if not self._waiting:
                continue
            try:
                await self._deliver_changes()
            except Exception as error:  # noqa: BLE001 - the next round tries again; every request has a limit
                survived(self._metrics, "directive_waiter", error, "http.directive_wait_failed")
                await asyncio.sleep(self._poll_s)

    async def _deliver_changes(self) -> None:
        # If two requests wait for the same session, query with the older number: the answer serves both.
        seen: dict[UUID, int] = {}
        # Not the requests that start to wait during the query: its answer may be older than the number they know.
        waiting = dict(self._waiting)
        for session_id, number in waiting.values():
            seen[session_id] = min(number, seen.get(session_id, number))
        found = _stagger_answers(await self._sessions.changed(seen))
        for changed, (session_id, number) in waiting.items():
            if changed.done() or session_id not in found:
                continue
            directive = found[session_id]
            # A smaller number was read before the acknowledgement whose answer this request waits for was written.
            if directive is None or directive.number > number:
                changed.set_result(directive)


def _stagger_answers(found: dict[UUID, Directive | None]) -> dict[UUID, Directive | None]:
    """Staggers the acknowledgements of the sessions that may resume before they acknowledge, over at most 0.1 s.

    An acknowledgement costs the processor more than a resume. Without the delay, the session that is notified last
    would stay stopped while the service processes the acknowledgements of the others.
    """
    resuming = [session_id for session_id, directive in found.items() if directive is not None and directive.resume]
    pauses = {session_id: turn * _ACKNOWLEDGEMENT_S for turn, session_id in enumerate(resuming, len(resuming) - 1)}
    return {
        session_id: replace(directive, answer_after_s=min(pauses[session_id], _MAX_PAUSE_S))
        if directive is not None and session_id in pauses
        else directive
        for session_id, directive in found.items()
    }
