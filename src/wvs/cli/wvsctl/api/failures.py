"""Everything that ends a command without its effect, each with the exit code that it becomes."""

from typing import Final

from wvs.cli.wvsctl.api.documents import ProblemDocument, TaskDocument
from wvs.cli.wvsctl.api.exits import Exit, exit_of


class ConsoleFailure(Exception):
    """The base: what happened is the text, `exit` the program's exit code, `help` what can be done, a line each."""

    exit: Exit = Exit.FAILURE

    def __init__(self, what: str, *help_lines: str, request_id: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.help = help_lines
        self.request_id = request_id


class UsageFailure(ConsoleFailure):
    """The command line asks for something that cannot be done as it stands; nothing was sent."""

    exit = Exit.USAGE


class Declined(ConsoleFailure):
    """A person answered no to a question; nothing was sent."""


class Unreachable(ConsoleFailure):
    """No connection could be made: the request was certainly not received."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"cannot connect to the API at {url}: {reason}",
            "start it with: wvs up",
            "or say where it is: --url URL, or WVS_URL in the environment",
        )


class ConnectionLost(ConsoleFailure):
    """The connection ended before the answer: the request may or may not have been done."""

    def __init__(self, url: str, reason: str, request_id: str) -> None:
        super().__init__(f"lost the connection to {url}: {reason}", request_id=request_id)
        self.reason = reason


class Foreign(ConsoleFailure):
    """Something answered that does not speak this API."""

    def __init__(self, url: str, what: str, request_id: str = "") -> None:
        super().__init__(
            f"{url} answered, but not as the WVS API does: {what}",
            "check --url or WVS_URL; the API's own address is what `wvs up` prints as ready",
            request_id=request_id,
        )


class Refusal(ConsoleFailure):
    """The API refused, with a problem document; `retry_after_s` is its Retry-After where it has one."""

    def __init__(self, status: int, problem: ProblemDocument, body: bytes, retry_after_s: float | None) -> None:
        super().__init__(problem.detail, *([problem.hint] if problem.hint else []), request_id=problem.request_id)
        self.status = status
        self.problem = problem
        self.body = body
        self.retry_after_s = retry_after_s
        self.exit = exit_of(status, problem.code)


class TaskFailed(ConsoleFailure):
    """The operation was accepted and its task ended without success."""

    exit = Exit.TASK_FAILED

    def __init__(self, task: TaskDocument) -> None:
        error = task.error
        reason = f": {error.detail} [{error.code}]" if error else ""
        hint = [error.hint] if error and error.hint else []
        super().__init__(f"{task.kind} {task.state}{reason}", *hint, *_next_steps(task))
        self.task = task


class CancelCameTooLate(ConsoleFailure):
    """A cancel was accepted, but the task had its effect before a safe point came."""

    exit = Exit.CONFLICT

    def __init__(self, task: TaskDocument) -> None:
        super().__init__(
            f"{task.kind} succeeded before the cancel took hold; what it did stays done",
            "undo its effect with a new operation if you need to",
        )


class WaitTimedOut(ConsoleFailure):
    """`--wait-timeout` is over; the task goes on."""

    exit = Exit.WAIT_TIMED_OUT

    def __init__(self, task: TaskDocument, seconds: float) -> None:
        super().__init__(
            f"{task.kind} is still {task.state} after {seconds:g} s; it goes on without this console",
            *_looking_on(task.id),
        )


class Interrupted(ConsoleFailure):
    """Ctrl-C; whatever was accepted goes on."""

    exit = Exit.INTERRUPTED


def interrupted_waiting(task: TaskDocument) -> Interrupted:
    """Ctrl-C while a task was waited for."""
    return Interrupted(
        f"interrupted; {task.kind} goes on without this console", *_looking_on(task.id), f"stop it: {CANCEL} {task.id}"
    )


def interrupted_sending(key: str) -> Interrupted:
    """Ctrl-C between a write and its answer: nobody here knows whether it was accepted."""
    return Interrupted(
        "interrupted before the answer came; the operation may have been accepted",
        f"the same command with --idempotency-key {key} tells, and does it at most once",
    )


CANCEL: Final = "wvsctl task cancel"


def _looking_on(task_id: str) -> tuple[str, ...]:
    return (f"look at it: wvsctl task get {task_id}", f"wait again: wvsctl task wait {task_id}")


def _next_steps(task: TaskDocument) -> tuple[str, ...]:
    if task.state != "failed":
        return ()
    return (f"try it again: wvsctl task retry {task.id}", f"give it up: {CANCEL} {task.id}")
