"""`wvsctl agent …`."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from wvs.cli.wvsctl.actions.arguments import Flag
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.api.exits import exit_of
from wvs.cli.wvsctl.api.failures import ConsoleFailure, UsageFailure

if TYPE_CHECKING:
    from wvs.agent.targets import Target

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
    environment of the program has WVS_WORKSPACE, WVS_SESSION, WVS_URL and WVS_LIVE (the path of the live tree).

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


@app.command
def attach(
    *,
    workspace: Annotated[str, Parameter(alias="-w")],
    container: str | None = None,
    cgroup: str | None = None,
    runtime: str | None = None,
    on_switch: str | None = None,
    agent: str | None = None,
    run: Run,
) -> None:
    """Freeze a running container, or any cgroup, for snapshots: wvsctl agent attach -w NAME --container NAME

    wvsctl runs on the container's host, outside the container, until the container ends, and exits with the container's
    exit code. It needs the right to freeze the container's cgroup, so mostly root. The container needs a bind mount of
    the live tree. After Ctrl-C or SIGTERM the container goes on, but without a session: no freeze stops it.

    Parameters
    ----------
    workspace
        Name or id (ws_…) of the workspace.
    container
        Name or id of a container that runs.
    cgroup
        In place of --container: the directory of a cgroup, for example that of a systemd unit.
    runtime
        docker or podman. The default is the first of the two that is installed.
    on_switch
        What to do when the live tree is replaced: restart (kill the container and restart it, which mounts the new
        tree; the default), exit (kill it and exit with 75; the default for --cgroup), or signal:NAME (send this signal
        to its main process, which must leave the old tree by itself).
    agent
        Name of the agent in lists and errors. The default is the name of the container or cgroup.
    """
    target = _target(container, cgroup, runtime)
    sys.exit(_attach(run, workspace, target, on_switch or ("restart" if target.can_restart else "exit"), agent))


def _attach(run: Run, workspace: str, target: "Target", on_switch: str, agent: str | None) -> int:
    import uvloop  # noqa: PLC0415  # costs 0.2 s with the imports below

    from wvs.agent.attachment import AttachOrder, attach_session  # noqa: PLC0415
    from wvs.agent.containers import NoContainer  # noqa: PLC0415
    from wvs.agent.errors import NoFreezer, NoRights  # noqa: PLC0415
    from wvs.agent.wrapper import OnSwitch  # noqa: PLC0415

    how, switch_signal = _switch_of(on_switch)
    order = AttachOrder(
        url=run.options.url,
        headers=run.options.headers,
        workspace=workspace,
        target=target,
        agent=_printable(agent or f"{target.kind} {target.name}"[:200]),
        report=lambda text: run.screen.notify(f"wvsctl: {text}"),
        on_switch=OnSwitch(how),
        switch_signal=switch_signal,
    )
    try:
        _fill_standard_descriptors()
        with _failures_for_people(run):
            return uvloop.run(attach_session(order))
    except NoContainer as error:
        raise ConsoleFailure(
            str(error),
            "see what runs: docker ps, or podman ps with --runtime podman; DOCKER_HOST names another daemon",
            *_as_root("if this user ({}) has no right to the runtime's socket", workspace, target),
        ) from error
    except NoFreezer as error:
        raise ConsoleFailure(
            str(error),
            "wvsctl agent attach runs as root, on the host and outside the container",
            *_as_root("this is user {}", workspace, target),
        ) from error
    except NoRights as error:
        raise ConsoleFailure(str(error), *_as_root("this is user {}", workspace, target)) from error


def _as_root(reason: str, workspace: str, target: "Target") -> tuple[str, ...]:
    """The command that attaches with all rights, unless this user is root."""
    if os.geteuid() == 0:
        return ()
    command = shlex.join(("wvsctl", "agent", "attach", "-w", workspace, f"--{target.kind}", target.name))
    return (f"{reason.format(f'uid {os.geteuid()}')}: sudo {command}",)


def _target(container: str | None, cgroup: str | None, runtime: str | None) -> "Target":
    from wvs.agent.containers import RUNTIMES, ContainerRuntime, NoContainer  # noqa: PLC0415
    from wvs.agent.targets import CgroupTarget, ContainerTarget  # noqa: PLC0415

    if runtime not in (None, *RUNTIMES):
        raise UsageFailure(f"--runtime {runtime!r} is not {' or '.join(RUNTIMES)}")
    if (container is None) == (cgroup is None):
        raise UsageFailure("give either --container or --cgroup", "wvsctl agent attach -w NAME --container NAME")
    if container is None:
        assert cgroup is not None
        return CgroupTarget(cgroup)
    try:
        return ContainerTarget(ContainerRuntime(runtime), container)
    except NoContainer as error:
        raise ConsoleFailure(str(error), "install its client, or name the container's cgroup: --cgroup PATH") from error


def _carry_out(
    run: Run, command: tuple[str, ...], workspace: str, on_switch: str, name: str, *, cooperative: bool
) -> int:
    import uvloop  # noqa: PLC0415  # costs 0.2 s with the imports below, which only this command needs

    from wvs.agent.command import CannotStart  # noqa: PLC0415
    from wvs.agent.errors import NoFreezer  # noqa: PLC0415
    from wvs.agent.wrapper import Assignment, OnSwitch, run_command  # noqa: PLC0415

    how, switch_signal = _switch_of(on_switch)
    assignment = Assignment(
        url=run.options.url,
        headers=run.options.headers,
        workspace=workspace,
        argv=command,
        agent=_printable(name),
        report=lambda text: run.screen.notify(f"wvsctl: {text}"),
        on_switch=OnSwitch(how),
        switch_signal=switch_signal,
        cooperative=cooperative,
    )
    try:
        _fill_standard_descriptors()
        with _failures_for_people(run):
            return uvloop.run(run_command(assignment))
    except CannotStart as failure:
        run.screen.notify(f"wvsctl: {failure}")
        return failure.code
    except NoFreezer as error:
        raise ConsoleFailure(
            f"this host has no way to freeze the command: {error}",
            "with systemd: systemd-run --user --scope -p Delegate=yes wvsctl agent run …",
            "or use SIGSTOP, which a program can evade: --cooperative",
        ) from error


def _switch_of(on_switch: str) -> tuple[str, int]:
    """What to do at a switch, and the signal."""
    from wvs.agent.wrapper import OnSwitch  # noqa: PLC0415

    how, _, signal_name = on_switch.partition(":")
    if how not in tuple(OnSwitch) or (how == OnSwitch.SIGNAL) != bool(signal_name):
        raise UsageFailure(f"--on-switch {on_switch!r} is not restart, exit or signal:NAME")
    return how, _signal_number(signal_name) if signal_name else signal.SIGHUP


@contextlib.contextmanager
def _failures_for_people(run: Run) -> Generator[None]:
    """Translates what every session may fail with. The caller translates its own `AgentError`s outside of this."""
    from wvs.agent.command import CannotStart  # noqa: PLC0415
    from wvs.agent.containers import NoContainer  # noqa: PLC0415
    from wvs.agent.errors import AgentError, NoFreezer, NoRights, Rejected, Unreachable  # noqa: PLC0415

    try:
        yield
    except Rejected as problem:
        failure = ConsoleFailure(f"{problem} [{problem.code}]", *([problem.hint] if problem.hint else []))
        failure.exit = exit_of(problem.status, problem.code)
        raise failure from problem
    except Unreachable as error:
        raise ConsoleFailure(
            f"cannot register at {run.client.url}: {error}", "start the service with: wvs up"
        ) from error
    except (CannotStart, NoFreezer, NoRights, NoContainer):
        raise
    except AgentError as error:
        raise ConsoleFailure(str(error)) from error


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else " " for c in name)


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
