"""`wvs projections rebuild` and `wvs projections verify`."""

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Generator
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wvs.cli.wvs.environment import database_url
from wvs.eventlog.codec import EventMapper
from wvs.projections import rebuild, verify
from wvs.projections.verify import Difference, Verified
from wvs.settings import Settings

_WORDS: Final = {
    "replay": "replaying the log",
    "indexes": "making indexes",
    "swap": "catching up for the swap",
    "compare": "comparing",
}
_LINE_EVERY_S: Final = 5.0
_COLLECT_AFTER: Final = 200_000
"""Objects between two looks for garbage. A batch of rows holds no cycles; by default a fifth of the time went there."""


def run_rebuild(settings: Settings) -> int:
    """Rebuilds and says what was done."""
    began = time.monotonic()
    with _shown() as progress:
        done = asyncio.run(rebuild.rebuild(database_url(settings), EventMapper(), progress))
    seconds = time.monotonic() - began
    went_on = f", going on from position {done.began_at}" if done.began_at else ""
    sys.stdout.write(
        f"rebuilt from {done.events} events in {seconds:.1f} s{went_on}; "
        f"the read models are those of position {done.position} and what came since\n"
    )
    return 0


def run_verify(settings: Settings, *, json: bool) -> int:
    """Compares and names what differs; 1 if anything does."""
    with _shown() as progress:
        found = asyncio.run(verify.verify(database_url(settings), EventMapper(), progress))
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(_document(found))).decode() + "\n")
    else:
        _tell(found)
    return 0 if found.equal else 1


def _document(found: Verified) -> dict[str, Any]:
    return {"equal": found.equal, **msgspec.to_builtins(found)}


def _tell(found: Verified) -> None:
    for difference in found.differences:
        sys.stdout.write(_line(difference) + "\n")
    untold = sum(found.differing.values()) - len(found.differences)
    if untold:
        sys.stdout.write(f"and {untold} more rows\n")
    rows = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in found.rows.items())
    if found.equal:
        sys.stdout.write(f"equal: {rows} are what {found.events} events up to position {found.position} say\n")
        return
    sys.stdout.write(
        f"{sum(found.differing.values())} rows differ from what {found.events} events say ({rows}).\n"
        "The log is the truth: wvs projections rebuild makes the rows anew. Keep this output: it shows what changed.\n"
    )


def _line(difference: Difference) -> str:
    key = " ".join(str(value) for value in difference.key.values())
    if difference.live is None:
        return f"{difference.table} {key}: missing, the log has it"
    if difference.log is None:
        return f"{difference.table} {key}: not in the log"
    changed = (
        f"{name} is {_value(value)}, the log says {_value(difference.log[name])}"
        for name, value in difference.live.items()
    )
    return f"{difference.table} {key}: {'; '.join(changed)}"


def _value(value: object) -> str:
    return msgspec.json.encode(value).decode()


@contextlib.contextmanager
def _shown() -> Generator[rebuild.ReportProgress]:
    """Progress on stderr: a bar on a terminal, else a line now and then."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 50, 1000)
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")

        def show(phase: str, reached: int, end: int) -> None:
            bar.update(task, description=_WORDS[phase], completed=reached, total=max(end, 1))

        yield show


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_EVERY_S
        self._phase = ""

    def __call__(self, phase: str, reached: int, end: int) -> None:
        now = time.monotonic()
        if phase == self._phase and now < self._next:
            return
        self._phase, self._next = phase, now + _LINE_EVERY_S
        sys.stderr.write(f"{_WORDS[phase]}: {reached} of {end}\n")
