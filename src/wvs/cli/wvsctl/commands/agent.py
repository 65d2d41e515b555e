"""`wvsctl agent …`."""

import os
import signal
import sys
from typing import Annotated

from cyclopts import App, Parameter

from wvs.cli.wvsctl.actions.arguments import Flag
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.api.exits import exit_of
from wvs.cli.wvsctl.api.failures import ConsoleFailure, UsageFailure

app = App(name="agent", help="Run programs that write to a live tree.")


@app.command(name="run")
def run_(
    *command: Annotated[str, Parameter(help="After --: the program and its arguments.")],
    workspace: Annotated[str, Parameter(alias="-w")],
    on_switch: str = "restart",
    agent: str | None = None,
    cooperative: Flag = False,
    run: Run,
) -> None:
    """Run a program in a live tree and freeze it for snapshots: wvsctl agent run -w NAME -- CMD ARG…

    The program and all its child processes run in their own cgroup, which wvsctl freezes while a snapshot is taken.
    wvsctl passes signals and output through, and exits with the program's exit code (128 + n for signal n). The
    environment of the program has WVS_WORKSPACE, WVS_SESSION, WVS_URL and WVS_LIVE (the stable link to the live tree).

    Parameters
    ----------
    workspace
        Name or id (ws_…) of the workspace.
    on_switch
        What to do when the live tree is replaced: restart (kill the program and start it in the new tree), exit (kill
        it and exit with 75), or signal:NAME (send this signal; the program must leave the old tree by itself).
    agent
        Name of the agent in lists and errors. The default is the command line.
    cooperative
        Use SIGSTOP if no cgroup is available. It cannot stop a program that evades it.
    """
    if not command:
        raise UsageFailure("no command given", "wvsctl agent run -w NAME -- CMD ARG…")
    sys.exit(_carry_out(run, command, workspace, on_switch, agent or " ".join(command)[:200], cooperative=cooperative))


def _carry_out(
    run: Run, command: tuple[str, ...], workspace: str, on_switch: str, name: str, *, cooperative: bool
) -> int:
    import uvloop  # noqa: PLC0415  # costs 0.2 s with the imports below, which only this command needs

    from wvs.agent.command import CannotStart  # noqa: PLC0415
    from wvs.agent.errors import AgentError, NoFreezer, Rejected, Unreachable  # noqa: PLC0415
    from wvs.agent.wrapper import Assignment, OnSwitch, run_command  # noqa: PLC0415

    how, _, signal_name = on_switch.partition(":")
    if how not in tuple(OnSwitch) or (how == OnSwitch.SIGNAL) != bool(signal_name):
        raise UsageFailure(f"--on-switch {on_switch!r} is not restart, exit or signal:NAME")
    assignment = Assignment(
        url=run.options.url,
        headers=run.options.headers,
        workspace=workspace,
        argv=command,
        agent="".join(c if c.isprintable() else " " for c in name),
        report=lambda text: run.screen.notify(f"wvsctl: {text}"),
        on_switch=OnSwitch(how),
        switch_signal=_signal_number(signal_name) if signal_name else signal.SIGHUP,
        cooperative=cooperative,
    )
    try:
        _fill_standard_descriptors()
        return uvloop.run(run_command(assignment))
    except CannotStart as failure:
        run.screen.notify(f"wvsctl: {failure}")
        return failure.code
    except Rejected as problem:
        failure = ConsoleFailure(f"{problem} [{problem.code}]", *([problem.hint] if problem.hint else []))
        failure.exit = exit_of(problem.status, problem.code)
        raise failure from problem
    except Unreachable as error:
        raise ConsoleFailure(
            f"cannot register at {run.client.url}: {error}", "start the service with: wvs up"
        ) from error
    except NoFreezer as error:
        raise ConsoleFailure(
            f"this host has no way to freeze the command: {error}",
            "with systemd: systemd-run --user --scope -p Delegate=yes wvsctl agent run …",
            "or use SIGSTOP, which a program can evade: --cooperative",
        ) from error
    except AgentError as error:
        raise ConsoleFailure(str(error)) from error


def _fill_standard_descriptors() -> None:
    """Opens /dev/null on 0, 1 and 2 where they are closed; libuv would reuse such a descriptor and abort on closing it.

    The command does not inherit these descriptors: it finds them closed, as it would without this function.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(descriptor)


def _signal_number(name: str) -> int:
    try:
        return signal.Signals["SIG" + name.upper().removeprefix("SIG")]
    except KeyError:
        raise UsageFailure(f"--on-switch names an unknown signal: {name!r}") from None
