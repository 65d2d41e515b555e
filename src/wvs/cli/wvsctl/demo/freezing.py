"""Two steps of the demo: `wvsctl agent run` freezes a program for a snapshot; and a program that does not freeze."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wvs.agent.cgroup_freezer import kernel_freezer
from wvs.agent.errors import NoFreezer
from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.demo.context import WORKSPACE, DemoContext
from wvs.cli.wvsctl.demo.narrator import CheckFailed
from wvs.cli.wvsctl.output.certificate import describe_certificate
from wvs.engines.paths import TREES

PROGRAM: Final = "i=0; while true; do i=$((i+1)); for f in ahead behind; do echo $i > new; mv new $f; done; done"
"""Writes two counters without a pause; `behind` is never more than one step behind `ahead`."""

_START_TIMEOUT_S: Final = 30.0
_STEP_TIMEOUT_S: Final = 20.0


def freeze_program(demo: DemoContext) -> None:
    """Takes a snapshot while a program writes without a pause; the snapshot is consistent."""
    narrator = demo.narrator
    title = "Freeze a busy program for a snapshot; the program itself knows nothing of WVS"
    with narrator.step(title), _running_program(demo) as (session, _):
        made = demo.wvsctl("snapshot", "create", WORKSPACE, "--message", "while a program writes").document["snapshot"]
        certificate = demo.certificate_of(made)
        narrator.show_output("\n".join(describe_certificate(certificate)))
        members = [member.session_id for member in certificate.members]
        narrator.check("the certificate names the program's session", holds=members == [session], actual=members)
        equal = bool(certificate.stamp_before) and certificate.stamp_before == certificate.stamp_after
        narrator.check("its stamps are equal", holds=equal)
        ahead, behind = (_number(demo.tree_of(made["id"]) / name) for name in ("ahead", "behind"))
        narrator.check(
            f"its two counters are consistent in the snapshot: {ahead} and {behind}", holds=ahead - behind in (0, 1)
        )
        narrator.check("and the program has resumed", holds=_is_running(demo.live))


def fail_to_freeze(demo: DemoContext) -> None:
    """Stops a program's wrapper, which then acknowledges no freeze: the snapshot fails and names the session."""
    narrator = demo.narrator
    with (
        narrator.step("Try to take a snapshot while an agent cannot freeze, because its wrapper is stopped"),
        _running_program(demo) as (session, wrapper),
    ):
        trees = set((demo.workspace_directory / TREES).iterdir())
        narrator.show_command(f"kill -STOP {wrapper.pid}")
        wrapper.send_signal(signal.SIGSTOP)
        narrator.explain("WVS takes no snapshot without a proof: if an agent does not freeze in time, the task fails")
        failed = demo.wvsctl("snapshot", "create", WORKSPACE, expected_exit=Exit.TASK_FAILED)
        error = failed.document["task"]["error"]
        narrator.show_output(error["detail"])
        narrator.check("the task failed with QUIESCE_TIMEOUT", holds=error["code"] == "QUIESCE_TIMEOUT", actual=error)
        narrator.check("the error names the session", holds=session in error["detail"])
        # The executor removes the empty directory of the clone just after it has recorded the failure.
        _wait_for(
            lambda: set((demo.workspace_directory / TREES).iterdir()) == trees, "the clone's directory was removed"
        )
        narrator.check("nothing was cloned", holds=True)
        narrator.check("and the program still runs", holds=_is_running(demo.live))


@contextmanager
def _running_program(demo: DemoContext) -> Generator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Runs the program for the block; yields its session and its wrapper process."""
    options = _options(demo)
    arguments = ["agent", "run", "-w", WORKSPACE, *options, "--", "sh", "-c", PROGRAM]
    demo.narrator.show_command(f"wvsctl {' '.join(arguments[:-1])} '{PROGRAM}' &")
    wrapper = subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvsctl", *arguments],
        env={**os.environ, "WVS_URL": demo.service.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(lambda: wrapper.poll() is None and _number(demo.live / "behind") > 0, "the program started")
        sessions = demo.wvsctl("session", "list", WORKSPACE).document["items"]
        yield next(session["id"] for session in sessions if session["pid"] == wrapper.pid), wrapper
    finally:
        wrapper.send_signal(signal.SIGCONT)
        wrapper.terminate()
        wrapper.wait(_START_TIMEOUT_S)
    for name in ("ahead", "behind", "new"):
        (demo.live / name).unlink(missing_ok=True)


def _options(demo: DemoContext) -> list[str]:
    """No options if this user may use the kernel's freezer, else `--cooperative`."""
    try:
        kernel_freezer(f"wvs-demo-{os.getpid()}").close()
    except NoFreezer as reason:
        demo.narrator.explain(f"no cgroup is available here ({reason}), so wvsctl uses SIGSTOP")
        return ["--cooperative"]
    return []


def _number(file: Path) -> int:
    """The number in the file; 0 if the file does not exist."""
    try:
        return int(file.read_text())
    except FileNotFoundError:
        return 0


def _is_running(live: Path) -> bool:
    before, deadline = _number(live / "behind"), time.monotonic() + _STEP_TIMEOUT_S
    while time.monotonic() < deadline:
        if _number(live / "behind") > before:
            return True
        time.sleep(0.01)
    return False


def _wait_for(satisfied: Callable[[], bool], claim: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not satisfied():
        if time.monotonic() > deadline:
            raise CheckFailed(f"{claim} within {_START_TIMEOUT_S:g} s: this is false")
        time.sleep(0.02)
