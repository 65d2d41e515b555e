"""A service in this process, and agents as separate processes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
import pytest
from tests.integration.agent.container_engine import ContainerEngine
from tests.integration.agent.docker_engine import DockerEngine
from tests.integration.agent.podman_engine import PodmanEngine
from tests.integration.engines.filesystems import Unavailable
from tests.integration.executor.conftest import Platform, namespace, platform, sites

from wvs.agent.cgroup_freezer import CgroupV1Freezer, CgroupV2Freezer, kernel_freezer
from wvs.agent.cgroup_placement import own_cgroup_v1, own_cgroup_v2
from wvs.agent.errors import NoFreezer
from wvs.domain.ids import SNAPSHOT, WORKSPACE, format_id
from wvs.domain.states import TaskState
from wvs.executor import operations
from wvs.executor.cloning import ProvenClone
from wvs.executor.workbench import Job
from wvs.http.server import listen, serve
from wvs.http.wiring import open_api
from wvs.postgres.pool import Pool

__all__ = ["namespace", "platform", "sites"]

_Engine = TypeVar("_Engine", bound=ContainerEngine)
PATIENCE_S = 60.0
SHORT_BUDGET_S = 3.0
"""The budget of a freeze that a test waits out. An agent has half of it to stop, on a slow machine too."""


class Wrapped:
    """One `wvsctl agent run` as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def ended(self) -> tuple[int, str, str]:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


class Service:
    """One active workspace with an API and an executor."""

    def __init__(self, platform: Platform, client: httpx.AsyncClient, workspace_id: UUID) -> None:
        self.platform = platform
        self.client = client
        self.url = str(client.base_url).rstrip("/")
        self.workspace_id = workspace_id
        self.name = format_id(WORKSPACE, workspace_id)
        self.live = platform.live(workspace_id)
        self.wrapped: list[Wrapped] = []

    async def run(
        self,
        *argv: str,
        options: tuple[str, ...] = (),
        url: str | None = None,
        below: tuple[str, ...] = (),
        **more: Any,
    ) -> Wrapped:
        """Starts `wvsctl agent run`; `below` is a command that starts it."""
        arguments = ("-m", "wvs.cli.wvsctl", "--url", url or self.url, "agent", "run", "-w", self.name, *options)
        process = await asyncio.create_subprocess_exec(
            *below,
            sys.executable,
            *arguments,
            "--",
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            **more,
        )
        wrapped = Wrapped(process)
        self.wrapped.append(wrapped)
        return wrapped

    async def shell(self, script: str, *options: str, url: str | None = None) -> Wrapped:
        return await self.run("sh", "-c", script, options=options, url=url)

    async def cgroup(self) -> Path:
        """The cgroup of the only session."""
        (session,) = await self.sessions()
        return await self.cgroup_of(session["id"])

    async def cgroup_of(self, session: str) -> Path:
        (cgroup,) = cgroups_of(session)
        return cgroup

    async def sessions(self, *, ended: bool = False) -> list[dict[str, Any]]:
        path = f"/v1/workspaces/{format_id(WORKSPACE, self.workspace_id)}/sessions"
        answer = await self.client.get(path, params={"all": ended})
        return answer.raise_for_status().json()["items"]

    async def evict(self, session: str) -> dict[str, Any]:
        answer = await self.client.post(f"/v1/sessions/{session}/evict", json={"reason": "the test says so"})
        return answer.raise_for_status().json()

    async def snapshot(self) -> tuple[UUID, TaskState]:
        return await self.platform.snapshot(self.workspace_id)

    async def document(self, snapshot_id: UUID) -> dict[str, Any]:
        path = f"/v1/workspaces/{self.name}/snapshots/{format_id(SNAPSHOT, snapshot_id)}"
        return (await self.client.get(path)).raise_for_status().json()

    async def failure(self) -> dict[str, Any]:
        """The error of the newest failed task."""
        return (await self.client.get("/v1/tasks", params={"state": "failed"})).json()["items"][0]["error"]

    async def attempts_failed(self) -> list[str]:
        events = (await self.client.get(f"/v1/workspaces/{self.name}/events")).json()["items"]
        return [e["data"]["error"]["code"] for e in events if e["type"] == "task.attempt_failed.v1"]

    async def close(self) -> None:
        """Ends the wrappers that still run; fails if one of them left its cgroup."""
        for wrapped in self.wrapped:
            if wrapped.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    wrapped.process.send_signal(signal.SIGCONT)
                    wrapped.process.terminate()
                await wrapped.ended()
        sessions = [session["id"] for session in await self.sessions(ended=True)]
        left = [cgroup for session in sessions for cgroup in cgroups_of(session)]
        for cgroup in left:  # of a failed test: no process may outlive it
            await clear(cgroup)
        await until(lambda: not any(map(guardians, sessions)))
        assert left == [], "an agent left its cgroup behind"

    async def tree(self, snapshot_id: UUID) -> Path:
        workspace = await self.platform.path.load(self.workspace_id)
        assert workspace is not None
        name = workspace.snapshots[snapshot_id].tree
        assert name is not None
        return self.platform.volume / self.name / "trees" / name / "root"


async def until(satisfied: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    async with asyncio.timeout(seconds):
        while not satisfied():
            await asyncio.sleep(0.01)


def cgroups_of(session: str) -> list[Path]:
    """The cgroup of a session, in either hierarchy, if there is one."""
    found: list[Path] = []
    for own in (own_cgroup_v2, own_cgroup_v1):
        with contextlib.suppress(NoFreezer):
            found += own().glob(f"wvs-{session}")
    return found


async def until_lease_renewed(service: Service, session: str | None = None) -> None:
    """Waits for a request of the session, or of the only session. Every request renews its lease."""

    async def lease_until() -> str:
        found = await service.sessions()
        return next(s["lease_until"] for s in found if session in (None, s["id"]))

    before = await lease_until()
    async with asyncio.timeout(PATIENCE_S):
        while await lease_until() == before:
            await asyncio.sleep(0.05)


async def clear(cgroup: Path) -> None:
    """What a person does with the cgroup of a killed wrapper, see docs/agents.md. The guardian removes it, too."""
    if (cgroup / "cgroup.kill").exists():
        (cgroup / "cgroup.kill").write_text("1")
    else:
        for pid in (cgroup / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        (cgroup / "freezer.state").write_text("THAWED")
    await until(lambda: _is_removed(cgroup))


def _is_removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def guardians(session: str) -> list[int]:
    """The process ids of the guardian of a session."""
    found: list[int] = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            cmdline = file.read_bytes()
            if b"guardian_process.py" in cmdline and session.encode() in cmdline:
                found.append(int(file.parent.name))
    return found


@pytest.fixture
def kernel_holds() -> None:
    """Skips the test if this process may not create cgroups."""
    try:
        kernel_freezer(f"wvs-probe-{os.getpid()}").close()
    except NoFreezer as reason:
        pytest.skip(f"no cgroup can be used here: {reason}")


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """One for each process of the run: it starts in half a second."""
    with closing_engine(lambda: DockerEngine(tmp_path_factory.mktemp("docker"))) as engine:
        yield engine


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanEngine]:
    """One for each module, for as long as this process adopts orphans."""
    with closing_engine(lambda: PodmanEngine(tmp_path_factory.mktemp("podman"))) as engine:
        yield engine


@contextlib.contextmanager
def closing_engine(start: Callable[[], _Engine]) -> Iterator[_Engine]:
    """Starts an engine, and closes it at the end; skips the test where it cannot run."""
    try:
        engine = start()
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield engine
    engine.close()


@pytest.fixture(params=["docker", "podman"])
def engine(
    request: pytest.FixtureRequest, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ContainerEngine]:
    """An engine that its command finds. Its containers are removed before the volume that they mount."""
    engine: ContainerEngine = request.getfixturevalue(request.param)
    for variable, value in engine.environment.items():
        monkeypatch.setenv(variable, value)
    yield engine
    engine.remove_containers()


@pytest.fixture(params=[CgroupV2Freezer, CgroupV1Freezer])
def cgroup_kind(request: pytest.FixtureRequest) -> type[CgroupV2Freezer] | type[CgroupV1Freezer]:
    return request.param


@pytest.fixture
def short_freezes(platform: Platform) -> None:
    """Request this fixture before `service`."""
    platform.settings_change(freeze_budget_s=SHORT_BUDGET_S)


@pytest.fixture
async def service(kernel_holds: None, platform: Platform) -> AsyncIterator[Service]:
    async with serving(platform) as client, platform.running():
        workspace_id = await platform.create()
        service = Service(platform, client, workspace_id)
        yield service
        await service.close()


@contextlib.asynccontextmanager
async def service_on(volume: Path, pool: Pool, url: str) -> AsyncGenerator[Service]:
    """The service on a volume of any engine, with leases that last longer than its clones."""
    async with Platform(pool, url, volume).hinting() as platform:
        platform.settings_change(lease_s=30.0, lease_renew_s=10.0)
        async with serving(platform) as client, platform.running():
            service = Service(platform, client, await platform.create())
            yield service
            await service.close()


@contextlib.asynccontextmanager
async def serving(platform: Platform) -> AsyncGenerator[httpx.AsyncClient]:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with open_api(platform.settings_with_volume(), platform.url) as api:
        listener = listen("127.0.0.1", 0)
        task = asyncio.create_task(serve(api, listener, on_listening=url.set_result, handle_signals=False))
        # Shorter than the service's own limit: else a request may meet the end of its connection.
        limits = httpx.Limits(keepalive_expiry=1)
        async with httpx.AsyncClient(base_url=await url, timeout=70, limits=limits) as client:
            yield client
        api.draining.set()
        await task


@pytest.fixture
def after_the_clone(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Runs a callback once, between a real clone and the question whether all agents are still frozen."""

    def arrange(happening: Callable[[], Awaitable[None]]) -> None:
        real = operations.clone_proven
        todo = [happening]

        async def clone(job: Job, source: str, point: str) -> ProvenClone:
            result = await real(job, source, point)
            while todo:
                await todo.pop()()
            return result

        monkeypatch.setattr(operations, "clone_proven", clone)

    return arrange
