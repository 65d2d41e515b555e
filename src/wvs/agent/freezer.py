"""The interface of freezers, which stop a whole process tree, and the waits that they share (design §7)."""

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Final

from wvs.agent.errors import NotThawed, StillAlive
from wvs.agent.guardian_handle import GuardianHandle
from wvs.domain.values import FrozenProcesses

_FIRST_POLL_S: Final = 0.0005
_LONGEST_POLL_S: Final = 0.02
THAW_PATIENCE_S: Final = 5.0
KILL_PATIENCE_S: Final = 10.0


class Freezer(ABC):
    """Freezes one process tree. No process of it runs between the return of `freeze` and the call of `thaw`."""

    name: ClassVar[str]
    caveat: ClassVar[str] = ""
    """A restriction of this way of freezing, which the certificate has to state."""

    @abstractmethod
    def enter(self) -> None:
        """Adds the calling process to the tree. Called in the child between fork and exec: makes system calls only."""

    @abstractmethod
    async def freeze(self) -> None:
        """Returns when the kernel reports the tree as frozen, however long that takes.

        A caller that stops waiting has to call `thaw`: the kernel may still complete the freeze.
        """

    @abstractmethod
    async def thaw(self) -> None:
        """Returns when the tree runs again. Raises `NotThawed` if the kernel does not report that within 5 s."""

    @abstractmethod
    def still_frozen(self) -> bool:
        """Whether no process of the tree has run since `freeze` returned, as far as the kernel reports it."""

    @abstractmethod
    def pids(self) -> list[int]:
        """The ids of the processes in the tree."""

    @abstractmethod
    def frozen(self) -> FrozenProcesses:
        """What `freeze` stopped, for the certificate."""

    @abstractmethod
    async def kill(self) -> None:
        """Kills the tree, frozen or not, without resuming it; returns when it is proven empty.

        Raises `StillAlive` if that takes longer than 10 s; may be called again.
        """

    def start_guardian(self) -> GuardianHandle | None:
        """Starts a guardian, which thaws the tree when this process cannot. None if only this process can thaw it."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Removes what the freezer created. The tree has to be empty."""


async def poll_until(is_satisfied: Callable[[], bool]) -> None:
    """Polls until the condition holds; at short intervals first, because the kernel mostly needs a millisecond."""
    pause = _FIRST_POLL_S
    while not is_satisfied():
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_POLL_S)


async def wait_until_thawed(is_satisfied: Callable[[], bool]) -> None:
    """Polls until the tree runs. Raises `NotThawed` after `THAW_PATIENCE_S`."""
    try:
        async with asyncio.timeout(THAW_PATIENCE_S):
            await poll_until(is_satisfied)
    except TimeoutError:
        raise NotThawed(f"the kernel did not confirm the thaw within {THAW_PATIENCE_S:g} s") from None


async def wait_until_dead(is_empty: Callable[[], bool], pids: Callable[[], list[int]]) -> None:
    """Polls until the tree is empty. Raises `StillAlive`, which names the processes, after `KILL_PATIENCE_S`."""
    try:
        async with asyncio.timeout(KILL_PATIENCE_S):
            await poll_until(is_empty)
    except TimeoutError:
        alive = " ".join(map(str, pids()))
        raise StillAlive(f"killed, but still there after {KILL_PATIENCE_S:g} s: process {alive or '?'}") from None


def signal_all(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """Sends a signal to each of the processes that still exists."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it has ended meanwhile
