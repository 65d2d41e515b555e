"""The freezer for a host without usable cgroups: SIGSTOP to every descendant. A person has to request it."""

import asyncio
import os
import signal
from pathlib import Path
from typing import ClassVar, Final

from wvs.agent.freezer import Freezer, poll_until, signal_all, wait_until_dead, wait_until_thawed
from wvs.agent.orphans import adopt_orphans
from wvs.domain.values import FrozenProcesses

_STOPPED: Final = "Tt"
_GONE: Final = "ZX"


class SigstopFreezer(Freezer):
    """Stops all descendants of this process, which must have no other children.

    It freezes only programs that cooperate: a SIGCONT from any process resumes them, and a process that another daemon
    started for the program is no descendant. The stamps of the clone still decide.
    """

    name: ClassVar[str] = "SIGSTOP"
    caveat: ClassVar[str] = "cooperative: stopped by SIGSTOP, not held by the kernel"

    def __init__(self) -> None:
        adopt_orphans()  # else a descendant whose parent has ended would be lost
        self._frozen_pids: list[int] | None = None

    def enter(self) -> None:
        pass  # every descendant belongs to the tree

    async def freeze(self) -> None:
        await poll_until(self._stop_all)
        await asyncio.sleep(0)
        self._frozen_pids = self.pids()

    async def thaw(self) -> None:
        self._frozen_pids = None
        signal_all(self.pids(), signal.SIGCONT)
        await wait_until_thawed(lambda: not any(state in _STOPPED for state in _descendants().values()))

    def still_frozen(self) -> bool:
        found = _descendants()
        return self._frozen_pids is not None and list(found) == self._frozen_pids and _all_stopped(found)

    def pids(self) -> list[int]:
        return list(_descendants())

    def frozen(self) -> FrozenProcesses:
        return FrozenProcesses("sigstop", "", len(self._frozen_pids or ()))

    async def kill(self) -> None:
        await wait_until_dead(self._kill_all, self.pids)

    def close(self) -> None:
        pass  # it created nothing

    def _stop_all(self) -> bool:
        """Whether all are stopped. Stopped processes cannot fork, so a second reading equal to the first is final."""
        first = _descendants()
        if not _all_stopped(first):
            signal_all((pid for pid, state in first.items() if state not in _STOPPED), signal.SIGSTOP)
            return False
        return _descendants() == first

    def _kill_all(self) -> bool:
        left = self.pids()
        signal_all(left, signal.SIGSTOP)
        signal_all(left)
        return not left


def _all_stopped(found: dict[int, str]) -> bool:
    return all(state in _STOPPED for state in found.values())


def _descendants() -> dict[int, str]:
    """The living descendants of this process, each with the letter of its state, see proc_pid_stat(5), in order."""
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
    return {pid: state for pid, state in sorted(found.items()) if state not in _GONE}
