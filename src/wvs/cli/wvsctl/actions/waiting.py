"""Waiting for a task: long polls until it is final, through restarts of the API, as long as the caller wants."""

import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.api.documents import TaskDocument
from wvs.cli.wvsctl.api.failures import (
    ConnectionLost,
    ConsoleFailure,
    Refusal,
    Unreachable,
    WaitTimedOut,
    interrupted_waiting,
)
from wvs.cli.wvsctl.api.transport import Answer
from wvs.cli.wvsctl.output.progress import Watcher
from wvs.domain.errors import ErrorCode

FIRST_WAIT_S: Final = 1
"""Most tasks are final within this, so that one request is enough."""
STEP_WITH_BAR_S: Final = 1
STEP_S: Final = 10
PATIENCE_S: Final = 60.0
"""How long an API that went away is waited for."""
QUEUED_NOTE_S: Final = 10.0


class Waited(Struct, frozen=True):
    """A final task, and the bytes it was read from."""

    task: TaskDocument
    raw: bytes


class Clock(Struct, frozen=True):
    """Monotonic seconds and a sleep; replaced in tests."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Waiter:
    """Waits for one task; `timeout_s` counts from its making, None waits without end."""

    def __init__(
        self, client: Client, watcher: Watcher, *, timeout_s: float | None, step_s: int, clock: Clock | None = None
    ) -> None:
        self._client = client
        self._watcher = watcher
        self._timeout_s = timeout_s
        self._step_s = step_s
        self._clock = clock or Clock()
        self._began = self._clock.now()
        self._queued_note_due = True

    def first_wait_s(self) -> int:
        """What to ask the API to wait for in the request that makes the task."""
        return self._step(FIRST_WAIT_S)

    def wait(self, task: TaskDocument) -> Waited:
        """The task when it is final.

        Raises `WaitTimedOut`, `Interrupted` for Ctrl-C, and the failure of the API if it stays away too long.
        """
        seen = task
        try:
            while True:
                self._watcher.show(seen)
                self._note_if_nobody_works(seen)
                asked = self._clock.now()
                answer = self._look(seen)
                seen = self._client.decode(answer, TaskDocument)
                if seen.is_final:
                    return Waited(seen, answer.body)
                self._end_if_over(seen)
                # Whatever answers at once instead of waiting must not be asked a thousand times a second.
                self._clock.sleep(max(0.0, asked + 0.25 - self._clock.now()))
        except KeyboardInterrupt:
            raise interrupted_waiting(seen) from None
        finally:
            self._watcher.close()

    def _look(self, task: TaskDocument) -> Answer:
        gone_at: float | None = None
        while True:
            try:
                return self._client.get(path_of("tasks", task.id), wait_s=self._step(self._step_s))
            except ConsoleFailure as failure:
                if not _may_pass(failure):
                    raise
                now = self._clock.now()
                if gone_at is None:
                    gone_at = now
                    self._watcher.note(f"{failure.what}; the task goes on, trying again")
                self._end_if_over(task)
                if now - gone_at > PATIENCE_S:
                    raise
                self._clock.sleep(1.0)

    def _step(self, longest_s: int) -> int:
        if self._timeout_s is None:
            return longest_s
        return max(0, min(longest_s, round(self._left_s())))

    def _left_s(self) -> float:
        return (self._timeout_s or 0.0) - (self._clock.now() - self._began)

    def _end_if_over(self, task: TaskDocument) -> None:
        if self._timeout_s is not None and self._left_s() <= 0:
            raise WaitTimedOut(task, self._timeout_s)

    def _note_if_nobody_works(self, task: TaskDocument) -> None:
        waited_s = self._clock.now() - self._began
        if self._queued_note_due and task.state == "queued" and task.error is None and waited_s > QUEUED_NOTE_S:
            self._queued_note_due = False
            self._watcher.note(f"still queued after {waited_s:.0f} s: is an executor running? (wvs up, wvs executor)")


def _may_pass(failure: ConsoleFailure) -> bool:
    match failure:
        case Refusal():
            return failure.problem.code == ErrorCode.UNAVAILABLE
        case ConnectionLost() | Unreachable():
            return True
        case _:
            return False
