"""From the first line to the last: the scratch directory, the service, the steps, and nothing left behind."""

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
from wvs.cli.wvsctl.demo.context import Stage
from wvs.cli.wvsctl.demo.narrator import NotAsTold, Teller, speak_any_language
from wvs.cli.wvsctl.demo.service import is_gone, running, tail
from wvs.cli.wvsctl.demo.walkthrough import STEPS, Story
from wvs.cli.wvsctl.output.layout import duration


def perform() -> Exit:
    """Tell the whole story; `Exit.FAILURE` if anything came out other than told."""
    speak_any_language()
    teller = Teller()
    began = time.monotonic()
    with _scratch() as directory:
        try:
            _play(teller, directory)
        except (NotAsTold, ConsoleFailure) as failure:
            teller.says(f"\nNOT AS TOLD  {failure}")
            log = directory / "wvs.log"
            if log.exists():
                teller.says(f"\nthe end of the service's log:\n{tail(log)}")
            return Exit.FAILURE
    teller.says(f"\nAll as told, in {duration(time.monotonic() - began)}.")
    return Exit.OK


def _play(teller: Teller, directory: Path) -> None:
    teller.says(f"The life of a workspace, on real files, in {directory}")
    with ExitStack() as stack:
        with teller.step("A service starts, with a PostgreSQL of its own"):
            teller.runs(f"wvs up --data-dir {directory / 'data'} --engine copy")
            service = stack.enter_context(running(directory))
            teller.proves(f"ready at {service.url}", holds=service.executor() is not None)
        story = Story(Stage(service, teller, directory))
        for step in STEPS:
            step(story)
        with teller.step("The service ends"):
            pids = [service.pid, *service.children()]
            code = service.end()
            teller.proves("wvs up drained and exited with 0", holds=code == 0, instead=code)
            teller.proves(f"all {len(pids)} processes are gone", holds=all(map(is_gone, pids)))


@contextmanager
def _scratch() -> Generator[Path]:
    """A directory for the time of the block; SIGTERM and SIGHUP end the block as Ctrl-C does."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    directory = Path(tempfile.mkdtemp(prefix="wvs-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, onerror=_unseal)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _unseal(_remove: object, path: str, _error: object) -> None:
    """A directory without write permission, such as a source tree may have: allow it and go on."""
    item = Path(path)
    item.parent.chmod(0o700)
    if item.is_dir() and not item.is_symlink():
        item.chmod(0o700)
        shutil.rmtree(item)
    else:
        item.unlink()
