"""Signals between `wvs up` and its child processes: the parent's end, and the readiness of each child."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Generator
from typing import Final

import msgspec
from msgspec import Struct

PARENT_PID: Final = "WVS_AGENT_PARENT_PID"
READY_FD: Final = "WVS_AGENT_READY_FD"
_REFUSAL: Final = "refusal"
_PR_SET_PDEATHSIG: Final = 1


class Announcement(Struct, frozen=True):
    """A child works. The fields are those of `announce_ready`."""

    part: str
    where: str
    metrics_url: str = ""


def end_with_parent() -> None:
    """Makes a child of `wvs up` drain when its parent ends for any reason (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.environ.get(PARENT_PID)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # the parent ended before prctl took effect
        os.kill(os.getpid(), signal.SIGTERM)


def announce_ready(part: str, where: str, metrics_url: str = "") -> None:
    """Reports that `part` works: to the parent if that is `wvs up`, else on stdout.

    `where` is the URL of the API or the volume of the executor. `metrics_url` is given only if the executor's metrics
    are not at the port of the settings.
    """
    if _announce(Announcement(part, where, metrics_url)):
        return
    sys.stdout.write(f"ready {where}\n" + (f"executor metrics {metrics_url}\n" if metrics_url else ""))
    sys.stdout.flush()


def announce_refusal(message: str) -> None:
    """Tells `wvs up`, if that is the parent, why this child cannot work with its settings."""
    _announce(Announcement(_REFUSAL, message))


def _announce(announcement: Announcement) -> bool:
    """Whether there is a parent that was told."""
    descriptor = os.environ.get(READY_FD)
    if descriptor is not None:
        os.write(int(descriptor), msgspec.json.encode(announcement) + b"\n")
    return descriptor is not None


class Announcements:
    """What the children announce, read from the pipe whose other end they have as `READY_FD`."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_inheritable(self.writing, True)
        os.set_blocking(self._reading, False)
        self._collected = b""
        self._latest: dict[str, Announcement] = {}
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def received(self) -> Generator[None]:
        """Receives announcements during the block, then closes the pipe."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._reading, self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._reading)
            os.close(self._reading)
            os.close(self.writing)

    async def of(self, part: str) -> Announcement:
        """The announcement of `part`, as soon as there is one."""
        while part not in self._latest:
            self._changed.clear()
            await self._changed.wait()
        return self._latest[part]

    def arrived(self, part: str) -> bool:
        """Whether `part` has announced that it works."""
        return part in self._latest

    @property
    def refusal(self) -> str | None:
        """Why the last child that refused its settings did so."""
        refused = self._latest.get(_REFUSAL)
        return refused and refused.where

    def _read(self) -> None:
        *lines, self._collected = (self._collected + os.read(self._reading, 4096)).split(b"\n")
        for line in lines:
            announcement = msgspec.json.decode(line, type=Announcement)
            self._latest[announcement.part] = announcement
            self._changed.set()
