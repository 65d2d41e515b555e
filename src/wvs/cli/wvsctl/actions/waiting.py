"""Waits for a task: long-polls until the task is final, across restarts of the API, up to a timeout."""

import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.api.documents import TaskDocument, WaitingDocument
from wvs.cli.wvsctl.api.failures import (
    CannotConnect,
    ConnectionLost,
    ConsoleFailure,
    GatewayFailure,
    Refusal,
    WaitTimedOut,
    interrupted_waiting,
)
from wvs.cli.wvsctl.api.transport import Answer
from wvs.cli.wvsctl.output.progress import Watcher
from wvs.domain.errors import ErrorCode

FIRST_WAIT_S: Final = 1
"""Most tasks end within this time, so that one request is enough."""
STEP_WITH_BAR_S: Final = 1
STEP_S: Final = 10
OUTAGE_LIMIT_S: Final = 60.0
"""How long to wait for an API that does not answer."""
_POLL_PAUSE_S: Final = 0.25


class Waited(Struct, frozen=True):
    """A final task, and the bytes of its JSON."""

    task: TaskDocument
    raw: bytes


class Clock(Struct, frozen=True):
    """Monotonic seconds and a sleep; tests replace both."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Waiter:
    """Waits for one task. `timeout_s` counts from the construction of the waiter; None waits without end."""

    def __init__(
        self, client: Client, watcher: Watcher, *, timeout_s: float | None, step_s: int, clock: Clock | None = None
    ) -> None:
        self._client = client
        self._watcher = watcher
        self._timeout_s = timeout_s
        self._step_s = step_s
        self._clock = clock or Clock()
        self._began = self._clock.now()
        self._noted: WaitingDocument | None = None

    def first_wait_s(self) -> int:
        """Seconds that the API should hold its answer to the request that creates the task."""
        return self._step(FIRST_WAIT_S)

    def wait(self, task: TaskDocument) -> Waited:
        """Waits until the task is final and returns it.

        Raises `WaitTimedOut`, `Interrupted` for Ctrl-C, and the API's failure if the API does not answer for too long.
        """
        latest = task
        try:
            while True:
                self._watcher.show(latest)
                self._note_what_it_waits_for(latest)
                asked = self._clock.now()
                answer = self.read(path_of("tasks", latest.id), latest, wait_s=self._step(self._step_s))
                latest = self._client.decode(answer, TaskDocument)
                if latest.is_final:
                    return Waited(latest, answer.body)
                self._raise_if_timed_out(latest)
                # A server that ignores the wait and answers at once must not get a thousand requests a second.
                self._clock.sleep(max(0.0, asked + _POLL_PAUSE_S - self._clock.now()))
        except KeyboardInterrupt:
            raise interrupted_waiting(latest) from None
        finally:
            self._watcher.close()

    def read(self, path: str, task: TaskDocument, *, wait_s: int = 0) -> Answer:
        """Reads `path`, which is of `task`. Waits for an API that does not answer, for at most `OUTAGE_LIMIT_S`."""
        outage_began: float | None = None
        while True:
            try:
                return self._client.get(path, wait_s=wait_s)
            except ConsoleFailure as failure:
                if not _is_temporary(failure):
                    raise
                now = self._clock.now()
                if outage_began is None:
                    outage_began = now
                    so_far = f"the task has {task.state}" if task.is_final else "the task continues"
                    self._watcher.note(f"{failure.message}; {so_far}; retrying")
                self._raise_if_timed_out(task)
                if now - outage_began > OUTAGE_LIMIT_S:
                    raise
                self._clock.sleep(1.0)

    def _step(self, longest_s: int) -> int:
        if self._timeout_s is None:
            return longest_s
        return max(0, min(longest_s, round(self._remaining_s())))

    def _remaining_s(self) -> float:
        return (self._timeout_s or 0.0) - (self._clock.now() - self._began)

    def _raise_if_timed_out(self, task: TaskDocument) -> None:
        if self._timeout_s is not None and self._remaining_s() <= 0:
            raise WaitTimedOut(task, self._timeout_s)

    def _note_what_it_waits_for(self, task: TaskDocument) -> None:
        if task.waiting_for is not None and task.waiting_for != self._noted:
            self._watcher.note(f"the task waits: {task.waiting_for.detail}")
        self._noted = task.waiting_for


def _is_temporary(failure: ConsoleFailure) -> bool:
    match failure:
        case Refusal():
            return failure.problem.code == ErrorCode.UNAVAILABLE
        case ConnectionLost() | CannotConnect() | GatewayFailure():
            return True
        case _:
            return False
