"""A container or a cgroup that writes to a live tree, and `wvsctl agent attach` beside it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

from tests.integration.agent.conftest import PATIENCE_S, Service, Wrapped, until

from wvs.agent.cgroup_freezer import CgroupV1Freezer, CgroupV2Freezer, kernel_freezer

COUNTER = 'n=$(cat n); echo "$n"; while true; do n=$((n+1)); echo $n > n.new && mv n.new n; done'
"""Reads the number in the tree once, then counts on for ever."""


async def attach(service: Service, *options: str, before: tuple[str, ...] = (), **more: Any) -> Wrapped:
    """Starts `wvsctl agent attach`, below the command `before`."""
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", "wvs.cli.wvsctl", "--url", service.url),
        *("agent", "attach", "-w", service.name, *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **more,
    )
    wrapped = Wrapped(process)
    service.wrapped.append(wrapped)
    return wrapped


async def attached(service: Service, *options: str, **more: Any) -> Wrapped:
    """Attaches, and waits for the session."""
    wrapped = await attach(service, *options, **more)
    await until_async(lambda: _has_session(service, wrapped))
    return wrapped


async def _has_session(service: Service, wrapped: Wrapped) -> bool:
    assert wrapped.process.returncode is None, await wrapped.ended()
    return any(session["pid"] == wrapped.process.pid for session in await service.sessions())


async def until_async(satisfied: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await satisfied():
            await asyncio.sleep(0.05)


def bound(source: Path, target: str = "/work") -> str:
    return f"--mount=type=bind,source={source},target={target}"


async def counts_on(file: Path) -> None:
    """Waits until a counter of `COUNTER` has counted on."""
    before = number_in(file)
    await until(lambda: number_in(file) > before)


def number_in(file: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return int(file.read_text() or 0)
    return 0


@contextlib.contextmanager
def cgroup_of_others() -> Generator[Path]:
    """A cgroup such as a service manager makes."""
    freezer = kernel_freezer(f"wvs-others-{os.getpid()}")
    assert isinstance(freezer, CgroupV1Freezer | CgroupV2Freezer)
    try:
        yield freezer.directory
    finally:
        for pid in freezer.pids():
            os.kill(pid, signal.SIGKILL)
        freezer.close()


async def in_cgroup(cgroup: Path, *argv: str, cwd: Path) -> asyncio.subprocess.Process:
    """Starts a program as the service manager does, and returns when it runs in the cgroup."""
    enter = ("sh", "-c", f'echo 0 > {cgroup}/cgroup.procs && exec "$@"', "sh")
    process = await asyncio.create_subprocess_exec(*enter, *argv, cwd=cwd, stdout=asyncio.subprocess.DEVNULL)
    await until(lambda: (cgroup / "cgroup.procs").read_text() != "")
    return process
