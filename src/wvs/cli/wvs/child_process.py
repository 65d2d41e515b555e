"""What `wvs up` and its children tell each other."""

import ctypes
import os
import signal
import sys
from typing import Final

PARENT: Final = "WVS_AGENT_PARENT_PID"
READY_FD: Final = "WVS_AGENT_READY_FD"
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """As a child of `wvs up`: drain when the parent is gone, however it went (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it went before the call
        os.kill(os.getpid(), signal.SIGTERM)


def announce(url: str) -> None:
    """Tells that the API serves: on stdout, or to `wvs up` where that is the parent."""
    descriptor = os.environ.get(READY_FD)
    if descriptor is None:
        sys.stdout.write(f"ready {url}\n")
        sys.stdout.flush()
    else:
        os.write(int(descriptor), f"{url}\n".encode())
