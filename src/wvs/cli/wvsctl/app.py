"""The program: its command groups, the options common to all commands, and the exit code."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

import wvs
from wvs.cli.wvsctl.actions.arguments import Flag
from wvs.cli.wvsctl.actions.invocation import Invocation, Options
from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.api.failures import ConsoleFailure
from wvs.cli.wvsctl.api.transport import DEFAULT_URL
from wvs.cli.wvsctl.commands import agent, audit, completion, current, demo, session, snapshot, task, workspace
from wvs.cli.wvsctl.output.failure_report import report_failure
from wvs.cli.wvsctl.output.screen import Screen

HELP = """Work with the workspaces of WVS, the Workspace Versioning Service.

Results go to stdout, all other messages to stderr. Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 5 conflict,
6 task failed, 7 wait timed out, 130 interrupted.
"""

_OWN_VARIABLES = {"WVS_URL", "WVS_ACTOR"}
"""Variables that most calls have. To know whether others are settings costs an import."""

app = App(name="wvsctl", help=HELP, version=f"wvsctl {wvs.__version__}", result_action="return_value")
app.meta.group_parameters = Group("Options of all commands", sort_key=100)
for group in (workspace, snapshot, current, task, session, audit, agent, demo):
    app.command(group.app)
completion.register(app)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    url: Annotated[str, Parameter(env_var="WVS_URL")] = DEFAULT_URL,
    header: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    json: Flag = False,
    actor: Annotated[str | None, Parameter(env_var="WVS_ACTOR")] = None,
    no_wait: Flag = False,
    wait_timeout: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    idempotency_key: str | None = None,
    yes: Annotated[Flag, Parameter(alias="-y")] = False,
) -> int:
    """Run one command.

    Parameters
    ----------
    url
        URL of the API.
    header
        Header NAME: VALUE for a proxy in front of the API; repeatable. Put secrets into WVS_HEADERS, one header a line.
    json
        Print the JSON of the API instead of text.
    actor
        The actor that the audit log records.
    no_wait
        Return as soon as the API has accepted the operation.
    wait_timeout
        Stop waiting after this many seconds; the task continues.
    idempotency_key
        Key that makes it safe to repeat an operation: the API runs it at most once per key.
    yes
        Do not ask for confirmation.
    """
    options = Options(
        url=url,
        headers=header,
        as_json=json,
        actor=actor,
        no_wait=no_wait,
        wait_timeout_s=wait_timeout,
        idempotency_key=idempotency_key,
        yes=yes,
    )
    command, bound, ignored = app.parse_args(tokens)
    screen = Screen(as_json=json)
    _warn_of_unknown_variables(screen)
    try:
        injected = {"run": Invocation(options, screen)} if "run" in ignored else {}
        return command(*bound.args, **bound.kwargs, **injected) or Exit.OK
    except ConsoleFailure as failure:
        return report_failure(failure, screen)


def _warn_of_unknown_variables(screen: Screen) -> None:
    variables = {name for name in os.environ if name.startswith("WVS_")}
    if variables <= _OWN_VARIABLES:
        return
    from wvs.settings import unknown_variables  # noqa: PLC0415 - most calls have none or few of them

    for name, similar in unknown_variables():
        screen.notify(f"wvsctl: {name} is not a setting" + (f"; did you mean {similar}?" if similar else ""))


def run(arguments: Sequence[str]) -> int:
    """Run the program and return its exit code; raises `SystemExit` for an invalid command line."""
    try:
        result: Any = app.meta(list(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("wvsctl: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`| head`). Without this the interpreter would fail when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILURE
    return result if isinstance(result, int) else Exit.OK
