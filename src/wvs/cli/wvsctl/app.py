"""The whole program: the groups, the options of every command, and what its end means."""

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
from wvs.cli.wvsctl.output.failure_report import report
from wvs.cli.wvsctl.output.screen import Screen

HELP = """Work with the workspaces of WVS, the Workspace Versioning Service.

Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 5 conflict,
6 task failed, 7 wait timed out, 130 interrupted.
"""

app = App(name="wvsctl", help=HELP, version=f"wvsctl {wvs.__version__}", result_action="return_value")
app.meta.group_parameters = Group("Options of every command", sort_key=100)
for group in (workspace, snapshot, current, task, session, audit, agent, demo):
    app.command(group.app)
completion.register(app)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    url: Annotated[str, Parameter(env_var="WVS_URL")] = DEFAULT_URL,
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
        Where the API is.
    json
        Print the API's JSON instead of text for people.
    actor
        Who does this, for the audit.
    no_wait
        Do not wait for the task of an operation.
    wait_timeout
        Seconds after which waiting ends; the task goes on.
    idempotency_key
        Repeat an operation safely: the same key is done at most once.
    yes
        Do not ask before something is destroyed.
    """
    options = Options(
        url=url,
        as_json=json,
        actor=actor,
        no_wait=no_wait,
        wait_timeout_s=wait_timeout,
        idempotency_key=idempotency_key,
        yes=yes,
    )
    command, bound, ignored = app.parse_args(tokens)
    screen = Screen(as_json=json)
    try:
        given = {"run": Invocation(options, screen)} if "run" in ignored else {}
        return command(*bound.args, **bound.kwargs, **given) or Exit.OK
    except ConsoleFailure as failure:
        return report(failure, screen)


def run(arguments: Sequence[str]) -> int:
    """Run the program; returns its exit code, and raises `SystemExit` for a faulty command line."""
    try:
        result: Any = app.meta(list(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("wvsctl: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the result has seen enough (`| head`); the interpreter would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILURE
    return result if isinstance(result, int) else Exit.OK
