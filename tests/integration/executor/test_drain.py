"""The orderly shutdown of an executor: it finishes short work, hands long work back, and leaves nothing running."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from tests.integration.engines.journals import read_journal
from tests.integration.executor.platform import MANY, Platform, eventually
from tests.integration.executor.processes import Executors

from wvs.domain.states import TaskState

CONNECTIONS = (
    "pg_stat_activity WHERE datname = current_database() "
    "AND application_name ~ '^wvs-(executor|reaper|listener|sweeper)'"
)


async def test_short_work_is_finished_before_the_executor_ends(platform: Platform, executors: Executors) -> None:
    first = executors.start(failpoints="create.cloning=sleep:0.5")
    workspace_id = await platform.create()
    platform.fill(workspace_id, 10)
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    await platform.until(workspace_id, task_id, TaskState.RUNNING)
    first.drain()
    assert await first.ended() == 0
    assert (await platform.workspace(workspace_id)).task_state(task_id) is TaskState.SUCCEEDED

    async def disconnected() -> bool:
        return await platform.pool.fetchval(f"SELECT count(*) FROM {CONNECTIONS}") == 0

    await eventually(disconnected)
    assert first.lines("executor_stopped")


async def test_a_draining_executor_claims_nothing(platform: Platform, executors: Executors) -> None:
    first = executors.start(failpoints="create.cloning=sleep:0.8", executor_slots="1")
    workspace_id = await platform.create()
    platform.fill(workspace_id, 10)
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    _, later = await platform.ask_for_snapshot(workspace_id)
    await platform.until(workspace_id, task_id, TaskState.RUNNING)
    first.drain()
    assert await first.ended() == 0
    workspace = await platform.workspace(workspace_id)
    assert workspace.task_state(task_id) is TaskState.SUCCEEDED
    assert workspace.task_state(later) is TaskState.QUEUED


async def test_long_work_is_handed_back_within_the_grace_time_and_another_executor_runs_it_at_once(
    platform: Platform, executors: Executors
) -> None:
    first = executors.start(
        failpoints="create.cloning=sleep:0.12"
    )  # with every batch of files: far beyond the grace time
    workspace_id = await platform.create()
    platform.fill(workspace_id, MANY)
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    await platform.until(workspace_id, task_id, TaskState.RUNNING)
    await asyncio.sleep(0.3)
    second = executors.start()
    await second.logged("executor_started")

    asked_at = time.monotonic()
    first.drain()
    assert await first.ended() == 0
    assert time.monotonic() - asked_at < 2 + 1.5, "the grace time, and a little for a busy machine"
    handed_back = first.lines("task_attempt_ended")
    assert [line["outcome"] for line in handed_back] == ["handed_back"]
    started = await second.logged("task_started")
    assert started["attempt"] == 1, "an attempt that was handed back does not count"
    assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    assert second.lines("lane_reaped") == []
    second.drain()
    assert await second.ended() == 0
    executors.start()
    await platform.until_swept(workspace_id)


async def test_a_thread_that_hangs_does_not_delay_the_shutdown(platform: Platform, executors: Executors) -> None:
    first = executors.start(failpoints="create.syncing=sleep:600")
    workspace_id = await platform.create()
    _, task_id = await platform.ask_for_snapshot(workspace_id)

    async def cloned() -> bool:
        return executors.journal.exists() and any(mark.phase == "end" for mark in read_journal(executors.journal))

    await eventually(cloned, 60)
    await asyncio.sleep(0.5)
    second = executors.start()
    first.drain()
    assert await first.ended(60) == 1, "the exit code reports that the drain was not orderly"
    assert first.lines("drain_gave_up")
    assert await platform.wait(workspace_id, task_id, 60) is TaskState.SUCCEEDED
    assert second.lines("task_taken_over")
    await platform.until_swept(workspace_id, 60)


async def test_an_executor_drains_though_its_database_is_gone(platform: Platform, executors: Executors) -> None:
    first = executors.start()
    await first.logged("executor_started")
    await platform.pool.execute(f"SELECT pg_terminate_backend(pid) FROM {CONNECTIONS}")
    first.drain()
    assert await first.ended() == 0


async def test_the_program_wvs_executor_drains_with_code_0(platform: Platform, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "WVS_DATABASE_URL": platform.url,
        "WVS_VOLUME": str(platform.volume),
        "WVS_EXECUTOR_METRICS_PORT": "0",
        "WVS_LOG_FORMAT": "json",
    }
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "wvs.cli.wvs", "executor", env=environment, stderr=stderr
        )
    try:
        await platform.create()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"executor_stopped" in log.read_bytes()
