"""`wvsctl agent run` inside a container, with the flags of docs/agents.md."""

import asyncio
import signal
import sys

import pytest
from tests.integration.agent.attaching import COUNTER, bound, counts_on, until_async
from tests.integration.agent.conftest import Service, until
from tests.integration.agent.container_engine import ContainerEngine

from wvs.agent.cgroup_placement import own_cgroup_v2
from wvs.agent.errors import NoFreezer
from wvs.domain.states import TaskState

ENDED_BY_SIGTERM = 128 + signal.SIGTERM
"""The exit code of the wrapper whose command ended by SIGTERM. A wrapper that Docker had to kill has 137."""


def run_inside(engine: ContainerEngine, service: Service, *flags: str, options: tuple[str, ...] = ()) -> str:
    home = service.platform.home(service.workspace_id)
    (service.live / "n").write_text("1\n")
    console = (sys.executable, "-m", "wvs.cli.wvsctl", "--url", service.url, "agent", "run", "-w", service.name)
    return engine.start(
        *(*console, *options, "--", "sh", "-c", COUNTER),
        options=(bound(home, str(home)), *flags),
        network="host",
    )


async def snapshots_and_switch(engine: ContainerEngine, service: Service, name: str) -> str:
    """Three snapshots and a switch; returns what the flush of the last one reported."""

    async def is_attached() -> bool:
        assert engine.state(name)["Running"], engine.logs(name)
        return bool(await service.sessions())

    await until_async(is_attached)
    for _ in range(3):
        await counts_on(service.live / "n")
        snapshot_id, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED, str((await service.failure())["detail"])[-400:]
    assert await service.platform.set_current(service.workspace_id, snapshot_id) is TaskState.SUCCEEDED
    await until(lambda: len(engine.logs(name).splitlines()) >= 2)
    await counts_on(service.live / "n")
    assert await service.attempts_failed() == []
    document = await service.document(snapshot_id)
    # In a thread: the API runs in this loop, and the wrapper ends only after the API has ended its session.
    await asyncio.to_thread(engine.call, "stop", "--time", "30", name)
    assert engine.state(name)["ExitCode"] == ENDED_BY_SIGTERM
    assert await service.sessions() == []
    return document["certificate"]["members"][0]["flush"]


async def test_agent_run_freezes_its_own_cgroup_inside_a_container(engine: ContainerEngine, service: Service) -> None:
    try:
        hierarchy = own_cgroup_v2()
    except NoFreezer as reason:
        pytest.skip(f"no cgroup can be used here: {reason}")
    mounted = next(place for place in (hierarchy, *hierarchy.parents) if place.is_mount())
    name = run_inside(engine, service, "--cgroupns=host", bound(mounted, str(mounted)))
    assert await snapshots_and_switch(engine, service, name) == "ok"


async def test_agent_run_inside_a_container_without_a_cgroup_wants_cooperative(
    engine: ContainerEngine, service: Service
) -> None:
    refused = run_inside(engine, service)
    await until(lambda: not engine.state(refused)["Running"])
    assert engine.state(refused)["ExitCode"] == 1
    name = run_inside(engine, service, options=("--cooperative",))
    assert "SIGSTOP" in await snapshots_and_switch(engine, service, name)
