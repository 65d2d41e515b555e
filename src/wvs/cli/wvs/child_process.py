"""Signals between `wvs up` and its child processes: the parent's end, and the API's readiness."""

import ctypes
import os
import signal
import sys
from typing import Final

PARENT_PID: Final = "WVS_AGENT_PARENT_PID"
READY_FD: Final = "WVS_AGENT_READY_FD"
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """Makes a child of `wvs up` drain when its parent ends for any reason (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.environ.get(PARENT_PID)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # the parent ended before prctl took effect
        os.kill(os.getpid(), signal.SIGTERM)


def announce_ready(url: str) -> None:
    """Reports that the API serves at `url`: to the parent if that is `wvs up`, else on stdout."""
    descriptor = os.environ.get(READY_FD)
    if descriptor is None:
        sys.stdout.write(f"ready {url}\n")
        sys.stdout.flush()
    else:
        os.write(int(descriptor), f"{url}\n".encode())
