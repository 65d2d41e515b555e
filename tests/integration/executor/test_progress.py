"""The progress that a running task shows, and the end of a task that never ends by itself."""

import asyncio

import msgspec
from tests.integration.executor.platform import MANY, Platform, value
from tests.integration.executor.processes import Executors

from wvs import failpoints
from wvs.domain.errors import ErrorCode
from wvs.domain.states import TaskKind, TaskState
from wvs.telemetry.metrics import Metrics

RECORD_PROGRESS = """
CREATE TABLE seen_progress (at timestamptz, progress jsonb);
CREATE FUNCTION see_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.progress IS NOT NULL THEN INSERT INTO seen_progress VALUES (clock_timestamp(), NEW.progress); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER see_progress AFTER UPDATE ON wvs.queue FOR EACH ROW EXECUTE FUNCTION see_progress();
"""


async def test_progress_is_written_while_cloning_at_most_twice_a_second(platform: Platform) -> None:
    await platform.pool.execute(RECORD_PROGRESS)
    async with platform.running():
        workspace_id = await platform.create()
        platform.fill(workspace_id, MANY)
        failpoints.arm(
            "create.cloning=sleep:0.12"
        )  # with every batch of files, once the first tenth of a second is over
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        await platform.until(workspace_id, task_id, TaskState.RUNNING)
        await asyncio.sleep(2.4)
        failpoints.arm("")
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    rows = await platform.pool.fetch("SELECT at, progress FROM seen_progress ORDER BY at")
    decoded = [msgspec.json.decode(progress) for _, progress in rows]
    cloning = [p for p in decoded if p["phase"] == "cloning" and p["files_done"]]
    assert len(cloning) >= 3
    assert [p["files_done"] for p in cloning] == sorted({p["files_done"] for p in cloning})
    assert {p["files_total"] for p in cloning} == {MANY}
    assert {p["bytes_total"] for p in cloning} == {MANY * 16}
    span_s = (rows[-1]["at"] - rows[0]["at"]).total_seconds()
    assert len(rows) <= span_s * 2 + 1.5
    done = msgspec.json.decode((await platform.task_row(task_id))["progress"])
    assert (done["phase"], done["files_done"], done["files_total"]) == ("done", MANY, MANY)


async def test_an_attempt_past_its_deadline_is_ended_for_good(platform: Platform) -> None:
    metrics = Metrics()
    async with platform.running(metrics, deadlines_s={**ALL, TaskKind.SNAPSHOT_CREATE: 0.4}):
        workspace_id = await platform.create()
        failpoints.arm("create.cloning=sleep:1.5")
        _, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        failpoints.arm("")
        assert (await platform.error(task_id)).code is ErrorCode.DEADLINE_EXCEEDED
        await platform.until_swept(workspace_id)
        await platform.ready_snapshot(workspace_id)
    assert value(metrics, "wvs_task_attempts_total", kind="snapshot_create", outcome="failed") == 1


async def test_a_hanging_executor_past_the_deadline_loses_its_task_which_is_failed(
    platform: Platform, executors: Executors
) -> None:
    """It follows no order, so the executor that takes over the lane records the end; nothing retries by itself."""
    async with platform.running():
        workspace_id = await platform.create()
    deadlines_s = {**ALL, TaskKind.SNAPSHOT_CREATE: 0.5}
    first = executors.start(failpoints="create.cloned=stop")
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    await first.until_stopped()
    await platform.pool.execute(
        "UPDATE wvs.lanes SET deadline_at = now() + interval '0.5 s' WHERE workspace_id = $1", workspace_id
    )
    metrics = Metrics()
    async with platform.running(metrics, deadlines_s=deadlines_s):
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        error = await platform.error(task_id)
        assert error.code is ErrorCode.DEADLINE_EXCEEDED
        await platform.until_swept(workspace_id)
    assert value(metrics, "wvs_lease_lost_total") == 1


ALL = dict.fromkeys(TaskKind, 60.0)
