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
from wvs.postgres.access import check_access
from wvs.projections import rebuild, verify
from wvs.projections.verify import Difference, Verified
from wvs.settings import Settings

_PHASES: Final = {
    "replay": "replaying the log",
    "indexes": "creating indexes",
    "swap": "catching up for the swap",
    "compare": "comparing",
}
_LINE_EVERY_S: Final = 5.0
_COLLECT_AFTER: Final = 200_000
"""Allocations between two garbage collections. Batches of rows hold no cycles; the default cost a fifth of the time."""


def run_rebuild(settings: Settings) -> int:
    """Rebuilds the read models and prints a summary."""
    began = time.monotonic()
    url = database_url(settings)
    asyncio.run(check_access(url, for_writes=True))
    with _progress_display() as progress:
        done = asyncio.run(rebuild.rebuild(url, EventMapper(), progress))
    seconds = time.monotonic() - began
    resumed = f", resumed from position {done.began_at}" if done.began_at else ""
    sys.stdout.write(
        f"rebuilt from {done.events} events in {seconds:.1f} s{resumed}; "
        f"the read models include every event up to position {done.position} and all later ones\n"
    )
    return 0


def run_verify(settings: Settings, *, json: bool) -> int:
    """Compares the read models with the log and prints the differences; returns 1 if there are any."""
    url = database_url(settings)
    asyncio.run(check_access(url, for_writes=True))
    with _progress_display() as progress:
        found = asyncio.run(verify.verify(url, EventMapper(), progress))
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(_document(found))).decode() + "\n")
    else:
        _print(found)
    return 0 if found.equal else 1


def _document(found: Verified) -> dict[str, Any]:
    return {"equal": found.equal, **msgspec.to_builtins(found)}


def _print(found: Verified) -> None:
    for difference in found.differences:
        sys.stdout.write(_line(difference) + "\n")
    not_listed = sum(found.differing.values()) - len(found.differences)
    if not_listed:
        sys.stdout.write(f"and {not_listed} more rows\n")
    rows = ", ".join(f"{table.replace('_', ' ')} {count}" for table, count in found.rows.items())
    if found.equal:
        sys.stdout.write(
            f"equal: all rows ({rows}) match the log up to position {found.position} (events {found.events})\n"
        )
        return
    sys.stdout.write(
        f"rows that differ from the log: {sum(found.differing.values())}; "
        f"rows compared: {rows}; events {found.events}\n"
        "The log is right: wvs projections rebuild corrects the rows. Keep this output: it shows what changed.\n"
    )


def _line(difference: Difference) -> str:
    key = " ".join(str(value) for value in difference.key.values())
    if difference.live is None:
        return f"{difference.table} {key}: missing in the read model; the log has it"
    if difference.log is None:
        return f"{difference.table} {key}: only in the read model; the log does not have it"
    changed = (
        f"{name} is {_value(value)}, but {_value(difference.log[name])} in the log"
        for name, value in difference.live.items()
    )
    return f"{difference.table} {key}: {'; '.join(changed)}"


def _value(value: object) -> str:
    return msgspec.json.encode(value).decode()


@contextlib.contextmanager
def _progress_display() -> Generator[rebuild.ReportProgress]:
    """Shows progress on stderr: a bar on a terminal, otherwise a line every few seconds."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 50, 1000)
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _ProgressLines()
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("")

        def show(phase: str, reached: int, end: int) -> None:
            bar.update(task, description=_PHASES[phase], completed=reached, total=max(end, 1))

        yield show


class _ProgressLines:
    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_EVERY_S
        self._phase = ""

    def __call__(self, phase: str, reached: int, end: int) -> None:
        now = time.monotonic()
        if phase == self._phase and now < self._next:
            return
        self._phase, self._next = phase, now + _LINE_EVERY_S
        sys.stderr.write(f"{_PHASES[phase]}: {reached} of {end}\n")
