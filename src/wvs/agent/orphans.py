"""Orphans of the command: this process adopts them, and reaps each child that has ended (prctl(2), wait(2)).

Else they would become children of PID 1, which in many containers reaps nobody. A server would then find the process of
its old PID file as a zombie, take it for alive, and refuse to start again.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from wvs.agent.freezer import poll_until

_PR_SET_CHILD_SUBREAPER: Final = 36
_PATIENCE_S: Final = 2.0

Reap = Callable[[], object]


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def reap_children(own: Mapping[int, Reap]) -> None:
    """Reaps every child of this process that has ended.

    `own` names the children that this process started, each with what takes its exit status. Waiting for any child
    would lose that status.
    """
    while (pid := _ended_child()) is not None:
        if pid in own:
            own[pid]()
        else:
            os.waitpid(pid, os.WNOHANG)


async def until_reaped(pids: Iterable[int], own: Mapping[int, Reap]) -> None:
    """Reaps until no process of `pids` exists. All of them must have been killed.

    A cgroup is empty before the last of its processes has become a zombie, and before its children have a new parent.
    Returns after 2 s whatever is left: a process with a parent outside the tree has to be reaped by that parent.
    """

    def is_done() -> bool:
        reap_children(own)
        return not any(map(_exists, pids))

    try:
        async with asyncio.timeout(_PATIENCE_S):
            await poll_until(is_done)
    except TimeoutError:
        pass


def _ended_child() -> int | None:
    """A child that has ended and is not reaped."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
