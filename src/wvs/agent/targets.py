"""What `wvsctl agent attach` can hold: a container, or any cgroup of this host."""

import asyncio
import os
import select
import signal
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from wvs.agent.cgroup_freezer import CgroupV1Freezer, CgroupV2Freezer, freezer_of
from wvs.agent.cgroup_placement import cgroups_of_container
from wvs.agent.containers import Container, ContainerRuntime, NoContainer
from wvs.agent.errors import AgentError, CannotFreeze, NoRights
from wvs.agent.freezer import poll_until, signal_all

_RESTART_PATIENCE_S: Final = 3.0
"""A container that ended and was not started again for this long has ended for good."""
_LOOK_INTERVAL_S: Final = 0.2
_STOP_PATIENCE_S: Final = 10.0
_ATTEMPTS: Final = 3
_SHORT_ID: Final = 12
"""So many digits of its id docker and podman show."""


class Run:
    """One run of the target, from its start to its end: its freezer, and its main process.

    The descriptor of the main process tells its end at once, and cannot mean another process that got the same number.
    """

    def __init__(self, pid: int, freezer: CgroupV2Freezer | CgroupV1Freezer) -> None:
        """Raises `ProcessLookupError` if the main process has ended."""
        self.pid: Final = pid
        self.freezer: Final = freezer
        self._descriptor = os.pidfd_open(pid)

    def has_ended(self) -> bool:
        """Whether the main process has ended; what else ran in the cgroup may live on."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: int) -> None:
        """Sends a signal to the main process."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    async def until_ended(self) -> None:
        """Returns when the main process has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Closes the descriptors. The run itself goes on."""
        os.close(self._descriptor)
        self.freezer.close()


class Target(ABC):
    """Something that has runs, one after another."""

    name: str
    kind: Literal["container", "cgroup"]
    """As people call it, and as the certificate calls what was frozen."""
    can_restart: bool
    exit_code: int = 0
    """The exit code of the last run that ended."""

    @property
    @abstractmethod
    def frozen_name(self) -> str:
        """A part of the path of the cgroup that is frozen, for the certificate."""

    @abstractmethod
    async def find(self) -> Run:
        """The present run. Raises `AgentError` with what to do."""

    @abstractmethod
    async def next_run(self, ended: Run) -> Run | None:
        """The run after one that has ended; None if the target has ended for good."""

    @abstractmethod
    def require_unpaused(self, run: Run) -> None:
        """Raises `CannotFreeze` if another program holds the run frozen: it could thaw it at any moment."""

    @abstractmethod
    async def restart(self) -> Run:
        """Starts the target anew. Raises `AgentError`."""

    @abstractmethod
    async def stop(self, run: Run) -> None:
        """Ends the target for good. Raises `AgentError`."""


class ContainerTarget(Target):
    """A container of docker or podman."""

    kind = "container"
    can_restart = True

    def __init__(self, runtime: ContainerRuntime, name: str) -> None:
        self._runtime = runtime
        self._last: Container
        self._frozen_by_others: list[Path] = []
        self.name = name

    @property
    def frozen_name(self) -> str:
        return self._last.id[:_SHORT_ID]

    async def find(self) -> Run:
        return await self._adopt(await self._runtime.inspect(self.name))

    @property
    def is_removed_at_end(self) -> bool:
        """Whether the runtime removes the container when it ends (`--rm`)."""
        return self._last.is_removed_at_end

    async def _adopt(self, seen: Container) -> Run:
        runtime = self._runtime.name
        for _ in range(_ATTEMPTS):
            if not seen.pid:
                start = f"start it with: {runtime} start {self.name}"
                raise NoContainer(f"container {self.name} does not run (it is {seen.status}); {start}")
            try:
                directories = cgroups_of_container(seen.pid, seen.id)
                run = Run(seen.pid, freezer_of(directories, f"container {self.name}"))
            except (FileNotFoundError, ProcessLookupError):
                seen = await self._runtime.inspect(seen.id)
                continue
            again = await self._runtime.inspect(seen.id)
            if again.is_same_run(seen):  # else the number may by now be that of another process
                self._last, self._frozen_by_others = seen, directories
                return run
            run.close()
            seen = again
        raise NoContainer(f"container {self.name} restarts again and again; see: {runtime} logs {self.name}")

    async def next_run(self, ended: Run) -> Run | None:
        """Waits for a runtime that restarts itself, and for the pauses of a restart policy."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _RESTART_PATIENCE_S
        while True:
            try:
                seen = await self._runtime.look(self._last.id)
                if seen is None:
                    return None
                if seen.pid and not seen.is_same_run(self._last):
                    return await self._adopt(seen)
                self.exit_code = seen.exit_code
            except NoContainer:
                until = loop.time() + _RESTART_PATIENCE_S  # nobody knows whether it starts again
            else:
                if seen.status != "restarting" and loop.time() > until:
                    return None
            await asyncio.sleep(_LOOK_INTERVAL_S)

    def require_unpaused(self, run: Run) -> None:
        # A runtime may pause with the freezer of the other hierarchy.
        held = any((place / "freezer.state").exists() and _v1_is_held(place) for place in self._frozen_by_others)
        if held or run.freezer.is_held():
            raise CannotFreeze(
                f"container {self.name} is paused, and whoever paused it may resume it in the middle of a clone; "
                f"run: {self._runtime.name} unpause {self.name}"
            )

    async def restart(self) -> Run:
        await self._runtime.restart(self._last.id)
        return await self._adopt(await self._runtime.inspect(self._last.id))

    async def stop(self, run: Run) -> None:
        await self._runtime.stop(self._last.id)


class CgroupTarget(Target):
    """A cgroup that another program made, such as a systemd unit's or a pod's."""

    kind = "cgroup"
    can_restart = False

    def __init__(self, path: str) -> None:
        self.name = path
        self._directory = Path(path)

    @property
    def frozen_name(self) -> str:
        return self._directory.name

    async def find(self) -> Run:
        try:
            is_cgroup = (self._directory / "cgroup.procs").exists()
        except PermissionError as error:
            raise NoRights(f"no right to look into {self.name} ({error.strerror})") from None
        if not is_cgroup:
            raise AgentError(
                f"{self.name} is no cgroup; for a systemd unit: "
                "/sys/fs/cgroup$(systemctl show --property ControlGroup --value UNIT)"
            )
        run = await self._oldest()
        if run is None:
            raise AgentError(f"cgroup {self.name} has no process: start what is to be attached first")
        return run

    async def next_run(self, ended: Run) -> Run | None:
        """The oldest process is only the first to look at: the target ends with its last one."""
        return await self._oldest()

    async def _oldest(self) -> Run | None:
        """The cgroup as it is, with its oldest process as the main one; None if it is empty."""
        while self._directory.exists():
            freezer = freezer_of([self._directory], f"cgroup {self.name}")
            started = {pid: ticks for pid in freezer.pids() if (ticks := _started_at(pid)) is not None}
            with suppress(ProcessLookupError):
                if started:
                    return Run(min(started, key=started.__getitem__), freezer)
            freezer.close()
            if not started:
                return None
            await asyncio.sleep(_LOOK_INTERVAL_S)
        return None

    def require_unpaused(self, run: Run) -> None:
        if run.freezer.is_held():
            raise CannotFreeze(
                f"cgroup {self.name} is frozen by another program, which may thaw it during the clone; thaw it first"
            )

    async def restart(self) -> Run:
        raise AgentError(f"cgroup {self.name} cannot be restarted: its processes were started by another program")

    async def stop(self, run: Run) -> None:
        signal_all(run.freezer.pids(), signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_PATIENCE_S):
                await poll_until(lambda: not pids_left(run))
        await run.freezer.kill()


def pids_left(run: Run) -> list[int]:
    """The processes of the run that still execute: of a zombie only the number is left."""
    return [pid for pid in run.freezer.pids() if not _is_zombie(pid)]


def _v1_is_held(directory: Path) -> bool:
    return (directory / "freezer.state").read_text().strip() != "THAWED"


def _is_zombie(pid: int) -> bool:
    return _started_at(pid) is None


def _started_at(pid: int) -> int | None:
    """Ticks after boot, see proc_pid_stat(5); None if the process has ended, a zombie included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
