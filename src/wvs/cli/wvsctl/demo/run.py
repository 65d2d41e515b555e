"""Runs the demo from start to end: scratch directory, service, steps, cleanup."""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.api.failures import ConsoleFailure
from wvs.cli.wvsctl.demo.context import DemoContext
from wvs.cli.wvsctl.demo.narrator import CheckFailed, Narrator, allow_any_encoding
from wvs.cli.wvsctl.demo.service import has_ended, running, tail
from wvs.cli.wvsctl.demo.walkthrough import STEPS, Walkthrough
from wvs.cli.wvsctl.output.layout import duration


def run_demo() -> Exit:
    """Runs every step; returns `Exit.FAILURE` if a check or a command fails."""
    allow_any_encoding()
    narrator = Narrator()
    began = time.monotonic()
    with _scratch() as directory:
        try:
            _run_steps(narrator, directory)
        except (CheckFailed, ConsoleFailure) as failure:
            narrator.print(f"\nTHE DEMO FAILED  {failure}")
            log = directory / "wvs.log"
            if log.exists():
                narrator.print(f"\nthe end of the service's log:\n{tail(log)}")
            return Exit.FAILURE
    narrator.print(f"\nEvery check passed, in {duration(time.monotonic() - began)}.")
    narrator.print("To start your own service: wvs up. To see what you can do with it: wvsctl --help.")
    return Exit.OK


def _run_steps(narrator: Narrator, directory: Path) -> None:
    narrator.print("Welcome to WVS. This demo shows the life of a workspace on real files, step by step.")
    narrator.print(
        f"Each ✓ is a check that has just passed. Everything happens in {directory}, which is deleted at the end."
    )
    with ExitStack() as stack:
        with narrator.step("Start a private service, with its own PostgreSQL"):
            narrator.explain(
                "the engine `copy` works on every filesystem; btrfs, reflink and juicefs share data instead of copying"
            )
            narrator.show_command(f"wvs up --data-dir {directory / 'data'} --engine copy")
            service = stack.enter_context(running(directory))
            narrator.check(
                f"the API is ready at {service.url}, and an executor runs", holds=service.executor() is not None
            )
        walkthrough = Walkthrough(DemoContext(service, narrator, directory))
        for step in STEPS:
            step(walkthrough)
        with narrator.step("Stop the service"):
            pids = [service.pid, *service.children()]
            code = service.stop()
            narrator.check("wvs up drained its work and exited with 0", holds=code == 0, actual=code)
            narrator.check(f"all {len(pids)} processes have ended", holds=all(map(has_ended, pids)))


@contextmanager
def _scratch() -> Generator[Path]:
    """A temporary directory for the block; SIGTERM and SIGHUP end the block as Ctrl-C does."""
    handlers = {number: signal.signal(number, _exit) for number in (signal.SIGTERM, signal.SIGHUP)}
    directory = Path(tempfile.mkdtemp(prefix="wvs-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, onerror=_make_writable_and_remove)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _make_writable_and_remove(_remove: object, path: str, _error: object) -> None:
    """Makes an item that `rmtree` could not remove writable, and removes it: a copied source tree may be read-only."""
    item = Path(path)
    item.parent.chmod(0o700)
    if item.is_dir() and not item.is_symlink():
        item.chmod(0o700)
        shutil.rmtree(item)
    else:
        item.unlink()
