"""Waiting for directives: one query for all sessions that wait, on a hint or at least every second."""

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
_ANSWER_S: Final = 0.0003
"""About what the service needs to take one answer."""
_MAX_PAUSE_S: Final = 0.1

_log = structlog.get_logger("wvs.http")


Changed: TypeAlias = asyncio.Future[Directive | None]
"""The new directive, None where it has to be asked for; cancelled when the service drains and nobody may wait on."""


class DirectiveWaiter:
    """One per process. Five hundred idle sessions cost one query a second, and none of them a connection."""

    def __init__(self, sessions: Sessions, metrics: Metrics, draining: asyncio.Event, poll_s: float = POLL_S) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._draining = draining
        self._poll_s = poll_s
        self._waiting: dict[Changed, tuple[UUID, int]] = {}
        self._hint = asyncio.Event()

    def hint(self) -> None:
        """There may be new directives: look now. Never blocks."""
        self._hint.set()

    @contextlib.contextmanager
    def watching(self, session_id: UUID, seen: int) -> Generator[Changed]:
        """What is set once the session's newest directive has a greater number than `seen`.

        Whoever looks for it within the block misses nothing: what changes after that look is told.
        """
        changed: Changed = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self.hint()  # with nobody waiting it does not poll
        self._waiting[changed] = (session_id, seen)
        if self._draining.is_set():
            changed.cancel()
        try:
            yield changed
        finally:
            self._waiting.pop(changed, None)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Looks while the block lasts."""
        async with background(self._run(), self._end_when_draining()):
            yield

    async def _end_when_draining(self) -> None:
        # One for all of them: a task for each wait would be the greater part of what the wait costs.
        await self._draining.wait()
        for changed in self._waiting:
            changed.cancel()

    async def _run(self) -> None:
        while True:
            # Not wait_for: before Python 3.12 it takes no notice of a cancellation that comes together with the hint.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s if self._waiting else None):
                    await self._hint.wait()
            self._hint.clear()
            if not self._waiting:
                continue
            try:
                await self._deliver_changes()
            except Exception as error:  # noqa: BLE001 - a look that failed is repeated; whoever waits has a limit
                survived(self._metrics, "directive_waiter", error, "http.directive_wait_failed")
                await asyncio.sleep(self._poll_s)

    async def _deliver_changes(self) -> None:
        # Of two that wait for one session the one that saw less is told of what both have to know.
        seen: dict[UUID, int] = {}
        # Not those who begin to wait during the query: its answer may be older than what they have seen.
        waiting = dict(self._waiting)
        for session_id, number in waiting.values():
            seen[session_id] = min(number, seen.get(session_id, number))
        found = _stagger_answers(await self._sessions.changed(seen))
        for changed, (session_id, number) in waiting.items():
            if changed.done() or session_id not in found:
                continue
            directive = found[session_id]
            # A lesser one was read before the word was written whose answer is waited on.
            if directive is None or directive.number > number:
                changed.set_result(directive)


def _stagger_answers(found: dict[UUID, Directive | None]) -> dict[UUID, Directive | None]:
    """Has those who may go on before they answer wait with that until the others have gone on, for 0.1 s at most.

    An answer costs the processor more than to go on does: who is told last would stand still for the others' answers.
    """
    resuming = [session_id for session_id, directive in found.items() if directive is not None and directive.resume]
    pauses = {session_id: turn * _ANSWER_S for turn, session_id in enumerate(resuming, len(resuming) - 1)}
    return {
        session_id: replace(directive, answer_after_s=min(pauses[session_id], _MAX_PAUSE_S))
        if directive is not None and session_id in pauses
        else directive
        for session_id, directive in found.items()
    }
