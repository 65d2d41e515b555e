"""Stopping a whole process tree for certain: the interface, and the choice of the kernel's means (design §7)."""

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Final

from wvs.agent.errors import NotThawed, StillAlive
from wvs.agent.guardian_handle import GuardianHandle

_FIRST_POLL_S: Final = 0.0005
_LONGEST_POLL_S: Final = 0.02
THAW_PATIENCE_S: Final = 5.0
KILL_PATIENCE_S: Final = 10.0


class Freezer(ABC):
    """Holds one process tree. Nothing of it runs between the return of `freeze` and the call of `thaw`."""

    name: ClassVar[str]
    caveat: ClassVar[str] = ""
    """What the certificate has to say about this way of freezing, if anything."""

    @abstractmethod
    def enter(self) -> None:
        """Puts the calling process in. Called in the child between fork and exec: does system calls only."""

    @abstractmethod
    async def freeze(self) -> None:
        """Returns when the kernel says that everything stands still; waits as long as it takes.

        Whoever stops waiting has to call `thaw`: a freeze that was asked for may still come.
        """

    @abstractmethod
    async def thaw(self) -> None:
        """Returns when everything runs again. Raises `NotThawed` if the kernel does not say so in time."""

    @abstractmethod
    def holds(self) -> bool:
        """Whether the tree has stood still without a break since `freeze` returned, as far as the kernel tells."""

    @abstractmethod
    def pids(self) -> list[int]:
        """The processes in the tree."""

    @abstractmethod
    async def kill(self) -> None:
        """Kills the tree, frozen or not, without letting it run on; returns when it is proven empty.

        Raises `StillAlive` if it is not in time; may be called again.
        """

    def guard(self) -> GuardianHandle | None:
        """Starts a guardian that ends a standstill when this process cannot; None where only this one can."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Removes what was made for an empty tree."""


async def until(satisfied: Callable[[], bool]) -> None:
    """Asks until the answer is yes; soon at first, because the kernel mostly needs a millisecond."""
    pause = _FIRST_POLL_S
    while not satisfied():
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_POLL_S)


async def until_thawed(satisfied: Callable[[], bool]) -> None:
    """Raises `NotThawed` if that takes longer than `THAW_PATIENCE_S`."""
    try:
        async with asyncio.timeout(THAW_PATIENCE_S):
            await until(satisfied)
    except TimeoutError:
        raise NotThawed(f"not confirmed to run again within {THAW_PATIENCE_S:g} s") from None


async def until_dead(is_empty: Callable[[], bool], pids: Callable[[], list[int]]) -> None:
    """Raises `StillAlive`, naming the processes, if that takes longer than `KILL_PATIENCE_S`."""
    try:
        async with asyncio.timeout(KILL_PATIENCE_S):
            await until(is_empty)
    except TimeoutError:
        alive = " ".join(map(str, pids()))
        raise StillAlive(f"killed, but not gone within {KILL_PATIENCE_S:g} s: process {alive or '?'}") from None


def send_all(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """Sends a signal to each process that still is there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it ended by itself meanwhile
