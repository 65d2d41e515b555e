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

app = App(name="agent", help="Run programs that write a live tree.")


@app.command(name="run")
def run_(
    *command: Annotated[str, Parameter(help="After --: the program and its arguments.")],
    workspace: Annotated[str, Parameter(alias="-w")],
    on_switch: str = "restart",
    agent: str | None = None,
    cooperative: Flag = False,
    run: Run,
) -> None:
    """Run any program in a live tree, so that snapshots wait for it: wvsctl agent run -w NAME -- CMD ARG…

    The program and all that it starts live in a cgroup of their own, which is frozen while a snapshot is taken.
    Output is passed through, signals too, and the exit code is the program's own (128 + n for signal n). It finds
    WVS_WORKSPACE, WVS_SESSION, WVS_URL and WVS_LIVE (the stable link to the live tree) in its environment.

    Parameters
    ----------
    workspace
        Name or id (ws_…) of the workspace.
    on_switch
        When the live tree is replaced: restart (kill it and start it again in the new tree), exit (kill it and
        exit with 75), or signal:NAME (let it run on after this signal; it has to leave the old tree by itself).
    agent
        What it is called in lists and errors; the command line if nothing else is said.
    cooperative
        Use SIGSTOP where no cgroup can be used: holds only programs that let it.
    """
    if not command:
        raise UsageFailure("there is no command to run", "wvsctl agent run -w NAME -- CMD ARG…")
    sys.exit(_carry_out(run, command, workspace, on_switch, agent or " ".join(command)[:200], cooperative=cooperative))


def _carry_out(
    run: Run, command: tuple[str, ...], workspace: str, on_switch: str, name: str, *, cooperative: bool
) -> int:
    import uvloop  # noqa: PLC0415  # with what follows 0.2 s, which no other command needs

    from wvs.agent.command import CannotStart  # noqa: PLC0415
    from wvs.agent.errors import AgentError, NoFreezer, Rejected, Unreachable  # noqa: PLC0415
    from wvs.agent.wrapper import Assignment, OnSwitch, run_command  # noqa: PLC0415

    how, _, signal_name = on_switch.partition(":")
    if how not in tuple(OnSwitch) or (how == OnSwitch.SIGNAL) != bool(signal_name):
        raise UsageFailure(f"--on-switch {on_switch!r} is none of restart, exit and signal:NAME")
    assignment = Assignment(
        url=run.options.url,
        workspace=workspace,
        argv=command,
        agent="".join(c if c.isprintable() else " " for c in name),
        report=lambda text: run.screen.say(f"wvsctl: {text}"),
        on_switch=OnSwitch(how),
        switch_signal=_signal_number(signal_name) if signal_name else signal.SIGHUP,
        cooperative=cooperative,
    )
    try:
        _fill_standard_descriptors()
        return uvloop.run(run_command(assignment))
    except CannotStart as failure:
        run.screen.say(f"wvsctl: {failure}")
        return failure.code
    except Rejected as problem:
        failure = ConsoleFailure(f"{problem} [{problem.code}]", *([problem.hint] if problem.hint else []))
        failure.exit = exit_of(problem.status, problem.code)
        raise failure from problem
    except Unreachable as error:
        raise ConsoleFailure(f"cannot register at {run.options.url}: {error}", "is it running? wvs up") from error
    except NoFreezer as error:
        raise ConsoleFailure(
            f"this host offers nothing to freeze the command with: {error}",
            "with systemd: systemd-run --user --scope -p Delegate=yes wvsctl agent run …",
            "or let SIGSTOP do, which holds only programs that let it: --cooperative",
        ) from error
    except AgentError as error:
        raise ConsoleFailure(str(error)) from error


def _fill_standard_descriptors() -> None:
    """Where 0, 1 or 2 is closed, libuv would get it for a descriptor of its own, and abort when it closes that.

    The command does not inherit what is put there: it finds them closed, as it would without this.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(descriptor)


def _signal_number(name: str) -> int:
    try:
        return signal.Signals["SIG" + name.upper().removeprefix("SIG")]
    except KeyError:
        raise UsageFailure(f"there is no signal {name!r}") from None
