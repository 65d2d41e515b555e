"""The failures that end a command, each with its exit code."""

from typing import Final

from wvs.cli.wvsctl.api.documents import RefusalDocument, TaskDocument
from wvs.cli.wvsctl.api.exits import Exit, exit_of


class ConsoleFailure(Exception):
    """The base. `message` says what happened, `exit` is the exit code, and `help` lists remedies, one per line."""

    exit: Exit = Exit.FAILURE

    def __init__(self, message: str, *help_lines: str, request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.help = help_lines
        self.request_id = request_id


class UsageFailure(ConsoleFailure):
    """The command line is invalid; the console sent nothing."""

    exit = Exit.USAGE


class Declined(ConsoleFailure):
    """The user did not confirm; the console sent nothing."""


class CannotConnect(ConsoleFailure):
    """The console could not connect: the API did not receive the request."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"cannot connect to the API at {url}: {reason}",
            "start it with: wvs up",
            "if it runs elsewhere: --url URL, or set WVS_URL",
        )


class UntrustedCertificate(ConsoleFailure):
    """The certificate of the server cannot be verified. The console sent nothing."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"the certificate of {url} is not trusted: {reason}",
            "if a private CA issued it, name the file with the certificate of the CA: SSL_CERT_FILE=/path/to/ca.pem",
        )


class CredentialsWanted(ConsoleFailure):
    """A proxy in front of the API did not let the request pass."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(
            f"the proxy at {url} answers {status}: it did not accept who you are",
            "credentials: WVS_HEADERS='Authorization: Bearer …', --header, or WVS_URL=https://USER:PASSWORD@HOST",
        )


class ConnectionLost(ConsoleFailure):
    """The connection ended before the answer: the API may or may not have handled the request."""

    def __init__(self, url: str, reason: str, request_id: str) -> None:
        super().__init__(f"lost the connection to {url}: {reason}", request_id=request_id)
        self.reason = reason


class NotTheApi(ConsoleFailure):
    """A server answered that is not the WVS API."""

    def __init__(self, url: str, reason: str, request_id: str = "") -> None:
        super().__init__(
            f"the server at {url} is not the WVS API: {reason}",
            "check --url or WVS_URL; `wvs up` prints the URL of the API after `ready`",
            request_id=request_id,
        )


class GatewayFailure(ConsoleFailure):
    """A proxy answered in place of the API, which may or may not have handled the request."""

    def __init__(self, url: str, status: int, retry_after_s: float | None, request_id: str) -> None:
        super().__init__(
            f"the proxy at {url} answers {status}: it gets no answer from the API",
            "check that the API runs and that the proxy reaches it",
            request_id=request_id,
        )
        self.retry_after_s = retry_after_s


class Refusal(ConsoleFailure):
    """The API refused the request with a problem document; `retry_after_s` is its Retry-After, if any."""

    def __init__(self, status: int, problem: RefusalDocument, body: bytes, retry_after_s: float | None) -> None:
        super().__init__(problem.detail, *([problem.hint] if problem.hint else []), request_id=problem.request_id)
        self.status = status
        self.problem = problem
        self.body = body
        self.retry_after_s = retry_after_s
        self.exit = exit_of(status, problem.code)


class TaskFailed(ConsoleFailure):
    """The API accepted the operation, and its task failed or was cancelled."""

    exit = Exit.TASK_FAILED

    def __init__(self, task: TaskDocument) -> None:
        error = task.error
        reason = f": {error.detail} [{error.code}]" if error else ""
        hint = [error.hint] if error and error.hint else []
        super().__init__(f"{task.kind} {task.state}{reason}", *hint, *_next_steps(task))
        self.task = task


class CancelCameTooLate(ConsoleFailure):
    """The API accepted the cancel, but the task succeeded before it reached a safe point."""

    exit = Exit.CONFLICT

    def __init__(self, task: TaskDocument) -> None:
        super().__init__(
            f"{task.kind} succeeded before the cancel took effect; its result remains",
            "to undo it, start a new operation",
        )


class WaitTimedOut(ConsoleFailure):
    """`--wait-timeout` has expired; the task continues."""

    exit = Exit.WAIT_TIMED_OUT

    def __init__(self, task: TaskDocument, seconds: float) -> None:
        waits = f" ({task.waiting_for.detail})" if task.waiting_for else ""
        super().__init__(
            f"{task.kind} is still {task.state} after {seconds:g} s{waits}; it continues without this console",
            *_follow_up(task.id),
        )


class Interrupted(ConsoleFailure):
    """The user pressed Ctrl-C; accepted operations continue."""

    exit = Exit.INTERRUPTED


def interrupted_waiting(task: TaskDocument) -> Interrupted:
    """The failure for Ctrl-C while the console waits for a task."""
    return Interrupted(
        f"interrupted; {task.kind} continues without this console",
        *_follow_up(task.id),
        f"to cancel it: {CANCEL} {task.id}",
    )


def interrupted_sending(key: str) -> Interrupted:
    """The failure for Ctrl-C between a write and its answer: the API may have accepted the write."""
    return Interrupted(
        "interrupted before the API answered; it may have accepted the operation",
        f"to find out, repeat the command with --idempotency-key {key}: the operation runs at most once",
    )


CANCEL: Final = "wvsctl task cancel"


def _follow_up(task_id: str) -> tuple[str, ...]:
    return (f"to see it: wvsctl task get {task_id}", f"to wait again: wvsctl task wait {task_id}")


def _next_steps(task: TaskDocument) -> tuple[str, ...]:
    if task.state != "failed":
        return ()
    return (f"to retry it: wvsctl task retry {task.id}", f"to give it up: {CANCEL} {task.id}")
