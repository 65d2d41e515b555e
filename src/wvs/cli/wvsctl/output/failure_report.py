"""A failure, told to a person: what, why, and the command that helps; and to a program: the API's own problem."""

from collections.abc import Mapping
from typing import Any

from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.api.failures import ConsoleFailure, Refusal
from wvs.cli.wvsctl.output.screen import Screen


def report(failure: ConsoleFailure, screen: Screen) -> Exit:
    """Print `failure` and return the program's exit code."""
    if screen.as_json and isinstance(failure, Refusal):
        screen.show_json(failure.body)
    for line in lines_of(failure):
        screen.say(line)
    return failure.exit


def lines_of(failure: ConsoleFailure) -> list[str]:
    """The failure in lines for stderr."""
    code = f" [{failure.problem.code}]" if isinstance(failure, Refusal) else ""
    reasons = _blockers(failure) if isinstance(failure, Refusal) else []
    operator = [f"  request id, for the operator's log: {failure.request_id}"] if failure.request_id else []
    return [
        f"wvsctl: {failure.what}{code}",
        *(f"  {reason}" for reason in reasons),
        *(f"  {line}" for line in failure.help),
        *operator,
    ]


def _blockers(refusal: Refusal) -> list[str]:
    return [_blocker(blocker) for blocker in refusal.problem.blockers]


def _blocker(blocker: Mapping[str, Any]) -> str:
    match blocker:
        case {"kind": "current"}:
            return "blocked: it is the current snapshot (move away: wvsctl current set)"
        case {"kind": "task", "id": str(task_id)}:
            return f"blocked: task {task_id} names it (wvsctl task get {task_id})"
        case _:
            values = ", ".join(f"{name} {value}" for name, value in blocker.items())
            return f"blocked: {values}"
