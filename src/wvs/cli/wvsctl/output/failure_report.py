"""Reports a failure: to people what happened, why, and which command helps; to programs the API's own problem."""

from collections.abc import Mapping
from typing import Any

from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.api.failures import ConsoleFailure, Refusal
from wvs.cli.wvsctl.output.screen import Screen


def report_failure(failure: ConsoleFailure, screen: Screen) -> Exit:
    """Prints `failure` and returns the program's exit code."""
    if screen.as_json and isinstance(failure, Refusal):
        screen.show_json(failure.body)
    for line in failure_lines(failure):
        screen.notify(line)
    return failure.exit


def failure_lines(failure: ConsoleFailure) -> list[str]:
    """The lines on stderr that describe the failure."""
    code = f" [{failure.problem.code}]" if isinstance(failure, Refusal) else ""
    reasons = _blockers(failure) if isinstance(failure, Refusal) else []
    request_id = [f"  request id (for the service's log): {failure.request_id}"] if failure.request_id else []
    return [
        f"wvsctl: {failure.message}{code}",
        *(f"  {reason}" for reason in reasons),
        *(f"  {line}" for line in failure.help),
        *request_id,
    ]


def _blockers(refusal: Refusal) -> list[str]:
    return [_blocker(blocker) for blocker in refusal.problem.blockers]


def _blocker(blocker: Mapping[str, Any]) -> str:
    match blocker:
        case {"kind": "current"}:
            return "blocked: it is the current snapshot (to change that: wvsctl current set)"
        case {"kind": "task", "id": str(task_id)}:
            return f"blocked: task {task_id} uses it (to see it: wvsctl task get {task_id})"
        case _:
            values = ", ".join(f"{name} {value}" for name, value in blocker.items())
            return f"blocked: {values}"
