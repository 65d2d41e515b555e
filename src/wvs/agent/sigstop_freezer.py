"""The freezer for a host without usable cgroups: SIGSTOP to every descendant. A person has to request it."""

import asyncio
import os
import signal
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from wvs.agent.freezer import Freezer, poll_until, signal_all, wait_until_dead, wait_until_thawed
from wvs.agent.orphans import adopt_orphans
from wvs.domain.values import FrozenProcesses

_STOPPED: Final = "Tt"
_GONE: Final = "ZX"
_UNINTERRUPTIBLE: Final = "D"


class _Seen(NamedTuple):
    """A process: the letter of its state, see proc_pid_stat(5), and the id of its parent."""

    state: str
    parent: int


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
        await wait_until_thawed(lambda: not any(seen.state in _STOPPED for seen in _descendants().values()))

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
        """Whether all are stopped. Stopped processes cannot fork, so a second reading equal to the first is final.

        A parent in vfork(2) stops only after its child has executed a program or ended, so such a child has to run.
        """
        first = _descendants()
        if _all_stopped(first):
            return _descendants() == first
        needed = {pid for pid, seen in first.items() if _is_uninterruptible(first.get(seen.parent))}
        signal_all((pid for pid in needed if first[pid].state in _STOPPED), signal.SIGCONT)
        signal_all(
            (pid for pid, seen in first.items() if pid not in needed and seen.state not in _STOPPED), signal.SIGSTOP
        )
        return False

    def _kill_all(self) -> bool:
        left = self.pids()
        signal_all(left, signal.SIGSTOP)
        signal_all(left)
        return not left


def _all_stopped(found: dict[int, _Seen]) -> bool:
    return all(seen.state in _STOPPED for seen in found.values())


def _is_uninterruptible(seen: _Seen | None) -> bool:
    return seen is not None and seen.state == _UNINTERRUPTIBLE


def _descendants() -> dict[int, _Seen]:
    """The living descendants of this process, in the order of their ids."""
    children: dict[int, list[int]] = {}
    seen: dict[int, _Seen] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(entry.name)
        seen[pid] = _Seen(state, int(parent))
        children.setdefault(int(parent), []).append(pid)
    found: dict[int, _Seen] = {}
    waiting = [os.getpid()]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            found[pid] = seen[pid]
            waiting.append(pid)
    return {pid: one for pid, one in sorted(found.items()) if one.state not in _GONE}
