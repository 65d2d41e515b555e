"""Executor, API and PostgreSQL killed at each step of a freeze: every agent resumes in time, every task ends right.

`make test` tries one step for each victim, `make freeze` every step.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.integration.agent.conftest import Service, until_lease_renewed
from tests.integration.agent.stack import BUDGET_S, Stack, counted_on, is_paused, served
from tests.integration.agent.writing import __file__ as program
from tests.integration.agent.writing import broken
from tests.integration.executor.conftest import volume
from tests.integration.executor.processes import ExecutorProcess

from wvs.domain.ids import TASK, format_id
from wvs.domain.states import TaskState
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.embedded import EmbeddedPostgres

__all__ = ["volume"]

GRACE_S = 5.0
SLACK_S = 20.0
"""For a busy machine; `make freeze` prints the real time."""

_TRIES = 5

AROUND_THE_CLONE = ("stamped", "cloning", "cloned", "proven")
CREATE = ["freeze.opened", "create.frozen", *(f"create.{p}" for p in AROUND_THE_CLONE)]
CREATE += ["freeze.asked_again", "freeze.confirmed", "freeze.closing", "freeze.closed"]
SET = ["freeze.opened", "set.frozen", *(f"set.{p}" for p in AROUND_THE_CLONE), "set.synced", "set.opened"]
SET += [
    "freeze.asked_again",
    "freeze.confirmed",
    "set.committed",
    "switch.asked",
    "switch.taken",
    "switch.exchanged",
    "set.switched",
]
SET += ["freeze.closing", "freeze.closed"]
STEPS = [*(("create", point) for point in CREATE), *(("set", point) for point in SET)]
FROZEN_AT = {
    *(("create", point) for point in CREATE if not point.startswith("freeze.")),
    *(("set", point) for point in SET if point not in ("freeze.opened", "freeze.closed")),
}
BEFORE_THE_PATH_FOLLOWED = ("set.committed", "switch.asked", "switch.taken", "switch.exchanged")
"""Until another executor has ended the switch, no agent resumes: the path may show a tree that was replaced."""
RUNNING_AT = {("create", "freeze.confirmed"), ("create", "freeze.closing")}
"""For a snapshot an agent resumes when it is asked to confirm, and answers after that."""


def every_step_and_victim() -> list[object]:
    """Every step with every victim. One fixed step of each victim is for `make test`, the others for `make freeze`."""
    found: list[object] = []
    for victim in ("executor", "api", "server"):
        share = random.Random(victim).choice(STEPS)
        for step in STEPS:
            marks = () if step == share else (pytest.mark.campaign,)
            found.append(pytest.param(victim, *step, marks=marks, id=f"{victim}-{step[0]}-{step[1]}"))
    return found


@pytest.fixture
def stack(volume: Path, tmp_path: Path) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="wvs-pg-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = EmbeddedPostgres(directory, durable=False, settings={"shared_buffers": "16MB"})
        server.start()
        made = Stack(server, volume, tmp_path)
        yield made
        made.close()
        server.stop()


@pytest.fixture
async def service(kernel_holds: None, stack: Stack) -> AsyncIterator[Service]:
    async with served(stack) as made:
        yield made


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("victim", "operation", "point"), every_step_and_victim())
async def test_every_agent_resumes_and_the_task_ends_right(
    victim: str,
    operation: str,
    point: str,
    stack: Stack,
    service: Service,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    task_id, snapshot_id, executor = await stopped_at(stack, service, operation, point)
    if (operation, point) in FROZEN_AT:
        assert await is_paused(service)
    if (operation, point) in RUNNING_AT:
        assert await counted_on(service, time.monotonic(), BUDGET_S)
    killed = time.monotonic()
    kill(stack, victim, executor)
    if victim == "executor" and point in BEFORE_THE_PATH_FOLLOWED:
        await asyncio.sleep(BUDGET_S + GRACE_S + 1)
        assert await is_paused(service), "it would run in a tree that was replaced"
        killed = time.monotonic()
        executor = stack.start_executor()
    took_s = await counted_on(service, killed)
    assert took_s < BUDGET_S + GRACE_S + SLACK_S
    bring_back(stack, victim)
    if not executor.alive:
        executor = stack.start_executor()
    await stack.until_ready()
    state = await ended(service, task_id)
    error = None if state is TaskState.SUCCEEDED else await service.failure()
    assert error is None or error["code"] in ("QUIESCE_TIMEOUT", "QUIESCE_BROKEN"), error
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    if operation == "create" and error is None:
        assert broken(await service.tree(snapshot_id), scratch) == []
    if operation == "set":
        workspace = await service.platform.workspace(service.workspace_id)
        assert (workspace.current == snapshot_id) == (error is None)
        assert service.platform.live_tree(service.workspace_id) == workspace.live_tree
    await until_lease_renewed(service)
    await counted_on(service, time.monotonic())  # in the new tree the program first creates its files
    later_id, task_id = await service.platform.ask_for_snapshot(service.workspace_id)
    assert await ended(service, task_id) is TaskState.SUCCEEDED, "the workspace must be usable at once"
    assert broken(await service.tree(later_id), scratch) == []
    await counted_on(service, time.monotonic())
    executor.kill()
    result = "done" if error is None else error["code"]
    record_property("summary", f"{victim} killed at {operation} {point}: ran again after {took_s:.2f} s, task {result}")


async def stopped_at(stack: Stack, service: Service, operation: str, point: str) -> tuple[UUID, UUID, ExecutorProcess]:
    """The task, its snapshot, and the executor that runs it, which stopped at `point`."""
    async with service.platform.running():
        first = await service.platform.ready_snapshot(service.workspace_id)
    wrapped = await service.run(sys.executable, program)
    assert await wrapped.line() == "ready"
    await counted_on(service, time.monotonic())
    executor = stack.start_executor(f"{point}=stop@1")
    for _ in range(_TRIES):
        if operation == "create":
            snapshot_id, task_id = await service.platform.ask_for_snapshot(service.workspace_id)
        else:
            snapshot_id, task_id = first, await service.platform.ask_for_current(service.workspace_id, first)
        error = await _failed_before_it_stopped(service, executor, task_id)
        if error is None:
            return task_id, snapshot_id, executor
        assert error["code"].startswith("QUIESCE_"), error
        await counted_on(service, time.monotonic())
    raise AssertionError(f"the machine is too busy for a freeze within {BUDGET_S} s")


async def _failed_before_it_stopped(
    service: Service, executor: ExecutorProcess, task_id: UUID
) -> dict[str, Any] | None:
    """None once the executor has stopped. The error if the task failed before, because the budget is short."""
    async with asyncio.timeout(60):
        while not executor.stopped:
            task = (await service.client.get(f"/v1/tasks/{format_id(TASK, task_id)}")).json()
            if task["state"] == "failed" and not executor.stopped:
                return task["error"]
            await asyncio.sleep(0.02)
    return None


def kill(stack: Stack, victim: str, executor: ExecutorProcess) -> None:
    match victim:
        case "executor":
            executor.kill()
        case "api":
            stack.kill_api()
            executor.go_on()
        case _:
            stack.kill_server()
            executor.go_on()


def bring_back(stack: Stack, victim: str) -> None:
    match victim:
        case "executor":
            pass
        case "api":
            stack.start_api()
        case _:
            stack.server.stop()  # releases the resources of the killed server
            stack.server.start()


async def ended(service: Service, task_id: UUID) -> TaskState:
    async with asyncio.timeout(90):
        while True:
            try:
                return await service.platform.wait(service.workspace_id, task_id, 90)
            except CONNECTION_LOST:
                await asyncio.sleep(0.2)
