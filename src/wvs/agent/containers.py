"""Containers as their runtime's own command shows them: `docker` or `podman`, found on PATH."""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from wvs.agent.errors import AgentError
from wvs.agent.threads import in_daemon_thread

_TIMEOUT_S: Final = 60.0
_STOP_PATIENCE_S: Final = 10


RUNTIMES: Final = ("docker", "podman")
"""The commands that are known."""


class NoContainer(AgentError):
    """There is no such container that runs, or its runtime cannot be asked."""


class Container(Struct, frozen=True):
    """One run of a container. `pid` is its main process on this host, 0 if it does not run."""

    id: str
    pid: int
    started_at: str
    status: str
    exit_code: int
    is_removed_at_end: bool

    def is_same_run(self, other: "Container") -> bool:
        """Whether the container was not restarted between the two looks."""
        return (self.pid, self.started_at) == (other.pid, other.started_at)


class _State(Struct, rename="pascal"):
    pid: int
    status: str
    started_at: str
    exit_code: int = 0


class _HostConfig(Struct, rename="pascal"):
    auto_remove: bool = False


class _Inspected(Struct, rename="pascal"):
    id: str
    state: _State
    host_config: _HostConfig = msgspec.field(default_factory=_HostConfig)


class ContainerRuntime:
    """The runtime's command. Where its daemon is, it learns from the environment (`DOCKER_HOST`, `CONTAINER_HOST`)."""

    def __init__(self, name: str | None = None) -> None:
        """`name` is one of `RUNTIMES`; None: the first that is installed. Raises `NoContainer` if none is on PATH."""
        names = (name,) if name else RUNTIMES
        found = {one: path for one in names if (path := shutil.which(one))}
        if not found:
            raise NoContainer(
                f"no {' or '.join(names)} on PATH: wvsctl asks the runtime which processes a container has"
            )
        self.name, self._program = next(iter(found.items()))

    async def inspect(self, container: str) -> Container:
        """The container of this name or id. Raises `NoContainer` with the runtime's own words."""
        said = await self._call("container", "inspect", "--", container)
        try:
            (one,) = msgspec.json.decode(said, type=list[_Inspected])
        except (msgspec.DecodeError, ValueError) as error:
            raise NoContainer(
                f"{self.name} container inspect {container} answers in an unknown form: {error}"
            ) from None
        state = one.state
        return Container(
            one.id, state.pid, state.started_at, state.status, state.exit_code, one.host_config.auto_remove
        )

    async def look(self, container_id: str) -> Container | None:
        """The container of this id; None if it was removed. Raises `NoContainer` if the runtime cannot be asked."""
        try:
            return await self.inspect(container_id)
        except NoContainer:
            listed = await self._call("container", "ls", "--all", "--quiet", "--filter", f"id={container_id}")
            if listed.strip():
                raise
            return None

    async def restart(self, container_id: str) -> None:
        """Restarts the container, which mounts everything again. Raises `NoContainer`."""
        await self._call("container", "restart", "--time", "0", "--", container_id)

    async def stop(self, container_id: str) -> None:
        """Stops the container: SIGTERM, then SIGKILL after 10 s; no restart policy starts it again."""
        await self._call("container", "stop", "--time", str(_STOP_PATIENCE_S), "--", container_id)

    async def _call(self, *arguments: str) -> bytes:
        command = [self._program, *arguments]
        try:
            done = await in_daemon_thread(lambda: _run(command))
        except subprocess.TimeoutExpired:
            raise NoContainer(f"{self.name} {' '.join(arguments)}: no answer within {_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise NoContainer(f"{self._program} cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise NoContainer(f"{self.name} {arguments[1]} {arguments[-1]}: {said[-400:]}")
        return done.stdout


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False)
