"""The freezer for a host without usable cgroups, which a person has to ask for: SIGSTOP to every descendant."""

import asyncio
import ctypes
import os
import signal
from pathlib import Path
from typing import ClassVar, Final

from wvs.agent.freezer import Freezer, send_all, until, until_dead, until_thawed

_PR_SET_CHILD_SUBREAPER: Final = 36
_STOPPED: Final = "Tt"
_GONE: Final = "ZX"


class CooperativeFreezer(Freezer):
    """Stops all descendants of this process, which has to have no other children.

    It holds only programs that let it: anybody's SIGCONT undoes it, and what another daemon started for the program is
    no descendant. The stamps of the clone still decide.
    """

    name: ClassVar[str] = "SIGSTOP"
    caveat: ClassVar[str] = "cooperative: stopped by SIGSTOP, not held by the kernel"

    def __init__(self) -> None:
        # Descendants whose parents end become children of this process instead of leaving its sight.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        self._before: dict[int, str] | None = None

    def enter(self) -> None:
        pass  # a descendant is in

    async def freeze(self) -> None:
        await until(self._stop_all)
        await asyncio.sleep(0)
        self._before = _descendants()

    async def thaw(self) -> None:
        self._before = None
        send_all(self.pids(), signal.SIGCONT)
        await until_thawed(lambda: not any(state in _STOPPED for state in _descendants().values()))

    def holds(self) -> bool:
        found = _descendants()
        return self._before is not None and found.keys() == self._before.keys() and _all_stopped(found)

    def pids(self) -> list[int]:
        return [pid for pid, state in _descendants().items() if state not in _GONE]

    async def kill(self) -> None:
        await until_dead(self._kill_all, self.pids)

    def close(self) -> None:
        pass  # nothing was made

    def _stop_all(self) -> bool:
        """Once everything stands still nothing new can come: a second look that agrees is final."""
        first = _descendants()
        if not _all_stopped(first):
            send_all((pid for pid, state in first.items() if state not in _STOPPED + _GONE), signal.SIGSTOP)
            return False
        return _descendants() == first

    def _kill_all(self) -> bool:
        left = self.pids()
        send_all(left, signal.SIGSTOP)
        send_all(left)
        return not left


def _all_stopped(found: dict[int, str]) -> bool:
    return all(state in _STOPPED + _GONE for state in found.values())


def _descendants() -> dict[int, str]:
    """Every process below this one with the letter of its state, see proc_pid_stat(5)."""
    children: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(entry.name)
        states[pid] = state
        children.setdefault(int(parent), []).append(pid)
    found: dict[int, str] = {}
    waiting = [os.getpid()]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            found[pid] = states[pid]
            waiting.append(pid)
    return found
