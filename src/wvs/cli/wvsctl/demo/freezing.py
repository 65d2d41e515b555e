"""A program under `wvsctl agent run`: frozen for a snapshot, with the proof; and one that will not freeze."""

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
from wvs.cli.wvsctl.demo.stage import WORKSPACE, Stage
from wvs.cli.wvsctl.demo.telling import NotAsTold
from wvs.cli.wvsctl.output.proof import in_words
from wvs.engines.paths import TREES

PROGRAM: Final = "i=0; while true; do i=$((i+1)); for f in ahead behind; do echo $i > new; mv new $f; done; done"
"""Two files that are never more than one step apart, although it never rests."""

_START_S: Final = 30.0
_STEP_S: Final = 20.0


def program_is_frozen(stage: Stage) -> None:
    """The snapshot of a program that never rests holds both of its files in step."""
    tell = stage.teller
    title = "A program that knows nothing of WVS runs under wvsctl agent run, and is frozen for a snapshot"
    with tell.step(title), _program(stage) as (session, _):
        made = stage.wvsctl("snapshot", "create", WORKSPACE, "--message", "of a busy program").document["snapshot"]
        certificate = stage.certificate_of(made)
        tell.shows("\n".join(in_words(certificate)))
        members = [member.session_id for member in certificate.members]
        tell.proves("the proof names the program's session", holds=members == [session], instead=members)
        equal = bool(certificate.stamp_before) and certificate.stamp_before == certificate.stamp_after
        tell.proves("its stamps are equal", holds=equal)
        ahead, behind = (_number(stage.tree_of(made["id"]) / name) for name in ("ahead", "behind"))
        tell.proves(f"its files are in step in the snapshot: {ahead} and {behind}", holds=ahead - behind in (0, 1))
        tell.proves("and it runs on", holds=_goes_on(stage.link))


def program_that_will_not_freeze(stage: Stage) -> None:
    """Its wrapper is stopped: the snapshot fails, names it, and nothing was cloned."""
    tell = stage.teller
    with tell.step("An agent that will not freeze: its wrapper is stopped"), _program(stage) as (session, wrapper):
        trees = set((stage.link.parent / TREES).iterdir())
        tell.runs(f"kill -STOP {wrapper.pid}")
        wrapper.send_signal(signal.SIGSTOP)
        failed = stage.wvsctl("snapshot", "create", WORKSPACE, told=Exit.TASK_FAILED)
        error = failed.document["task"]["error"]
        tell.shows(error["detail"])
        tell.proves("the task failed with QUIESCE_TIMEOUT", holds=error["code"] == "QUIESCE_TIMEOUT", instead=error)
        tell.proves("which names the session", holds=session in error["detail"])
        # The empty directory that was to take the clone is removed right after the task is told to have failed.
        _wait_for(lambda: set((stage.link.parent / TREES).iterdir()) == trees, "nothing was cloned")
        tell.proves("nothing was cloned", holds=True)
        tell.proves("and the program was not disturbed", holds=_goes_on(stage.link))


@contextmanager
def _program(stage: Stage) -> Generator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The program at work: its session and its wrapper."""
    options = _options(stage)
    words = ["agent", "run", "-w", WORKSPACE, *options, "--", "sh", "-c", PROGRAM]
    stage.teller.runs(f"wvsctl {' '.join(words[:-1])} '{PROGRAM}' &")
    wrapper = subprocess.Popen(
        [sys.executable, "-m", "wvs.cli.wvsctl", *words],
        env={**os.environ, "WVS_URL": stage.service.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(lambda: wrapper.poll() is None and _number(stage.link / "behind") > 0, "the program began to work")
        sessions = stage.wvsctl("session", "list", WORKSPACE).document["items"]
        yield next(session["id"] for session in sessions if session["pid"] == wrapper.pid), wrapper
    finally:
        wrapper.send_signal(signal.SIGCONT)
        wrapper.terminate()
        wrapper.wait(_START_S)
    for name in ("ahead", "behind", "new"):
        (stage.link / name).unlink(missing_ok=True)


def _options(stage: Stage) -> list[str]:
    """None where the kernel can freeze for this user, as it should be."""
    try:
        kernel_freezer(f"wvs-demo-{os.getpid()}").close()
    except NoFreezer as reason:
        stage.teller.does(f"no cgroup can be used here ({reason}), so SIGSTOP has to do")
        return ["--cooperative"]
    return []


def _number(file: Path) -> int:
    """What the file holds; 0 if it is not there."""
    try:
        return int(file.read_text())
    except FileNotFoundError:
        return 0


def _goes_on(live: Path) -> bool:
    before, ends = _number(live / "behind"), time.monotonic() + _STEP_S
    while time.monotonic() < ends:
        if _number(live / "behind") > before:
            return True
        time.sleep(0.01)
    return False


def _wait_for(satisfied: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + _START_S
    while not satisfied():
        if time.monotonic() > ends:
            raise NotAsTold(f"{what} within {_START_S:g} s: no")
        time.sleep(0.02)
