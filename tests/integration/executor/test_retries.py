"""Retries by the executor and by people: backoff, order, the last attempt, abandoning."""

import itertools
from datetime import timedelta

import psycopg
import pytest
from tests.integration.executor.platform import Platform, eventually, value

from wvs import failpoints
from wvs.application.write_path import KEPT_FOR_DROPS
from wvs.domain.commands import RetryInit, RetryTask
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.policy import JITTER, RETRY
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.postgres.reserve import DiskReserve
from wvs.telemetry.metrics import Metrics


async def test_a_task_is_retried_with_growing_pauses_and_then_fails_until_a_person_retries_it(
    platform: Platform,
) -> None:
    metrics = Metrics()
    policy = RETRY[TaskKind.WORKSPACE_INIT]
    failpoints.arm("init.root_made=error")
    async with platform.running(metrics):
        workspace_id, task_id = await platform.ask_for_workspace()
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        assert (await platform.workspace(workspace_id)).state is WorkspaceState.INIT_FAILED
        assert (await platform.task_row(task_id))["attempt"] == policy.max_attempts
        error = await platform.error(task_id)
        assert error.code is ErrorCode.CLONE_FAILED
        assert "injected at init.root_made" in error.detail

        failpoints.arm("")
        await platform.execute(workspace_id, RetryInit(task_id))
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        assert (await platform.workspace(workspace_id)).state is WorkspaceState.ACTIVE
        await platform.until_swept(workspace_id)

    times = await platform.pool.fetch(
        "SELECT topic, occurred_at FROM wvs.events WHERE originator_id = $1 ORDER BY originator_version", workspace_id
    )
    assert [t for t, _ in times].count("task.attempt_failed.v1") == policy.max_attempts - 1
    pairs = itertools.pairwise(times)
    pauses = [after - before for (topic, before), (_, after) in pairs if topic == "task.attempt_failed.v1"]
    for number, pause in enumerate(pauses):
        least = policy.base_s * 2**number * (1 - JITTER)
        assert timedelta(seconds=least) <= pause < timedelta(seconds=least * 3 + 2)
    kind = str(TaskKind.WORKSPACE_INIT)
    assert value(metrics, "wvs_task_attempts_total", kind=kind, outcome="retried") == policy.max_attempts - 1
    assert value(metrics, "wvs_task_attempts_total", kind=kind, outcome="failed") == 1
    assert value(metrics, "wvs_task_duration_seconds_count", kind=kind, outcome="failed") == 1
    assert value(metrics, "wvs_task_duration_seconds_count", kind=kind, outcome="succeeded") == 1


async def test_retries_are_spread(platform: Platform) -> None:
    query = (
        "SELECT convert_from(state, 'UTF8')::jsonb -> 'event' ->> 'delay_s' FROM wvs.events "
        "WHERE topic = 'task.attempt_failed.v1'"
    )
    failpoints.arm("create.stamped=error")
    async with platform.running():
        workspaces = [await platform.create() for _ in range(3)]
        for workspace_id in workspaces:
            await platform.ask_for_snapshot(workspace_id)

        async def all_failed_once() -> list[str]:
            delays = [delay for (delay,) in await platform.pool.fetch(query)]
            return delays if len(delays) >= 3 else []

        delays = await eventually(all_failed_once)
    assert len(set(delays)) > 1


async def test_a_task_accepted_later_waits_for_one_that_is_being_retried(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        failpoints.arm("create.cloned=error@1")
        first, first_task = await platform.ask_for_snapshot(workspace_id)
        second, second_task = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, second_task) is TaskState.SUCCEEDED
        assert await platform.wait(workspace_id, first_task) is TaskState.SUCCEEDED
    rows = await platform.pool.fetch("SELECT id FROM wvs.snapshots ORDER BY ready_at")
    assert [i for (i,) in rows] == [first, second]


async def test_a_failed_task_holds_its_snapshot_until_it_is_abandoned(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        kept = await platform.ready_snapshot(workspace_id)
        other = await platform.ready_snapshot(workspace_id)
        failpoints.arm("set.cloned=error")
        task_id = await platform.ask_for_current(workspace_id, kept)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        with pytest.raises(Refused) as refused:
            await platform.ask_for_drop(workspace_id, kept)
        assert refused.value.code is ErrorCode.SNAPSHOT_IN_USE

        failpoints.arm("")
        await platform.execute(workspace_id, RetryTask(task_id))
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED

        failpoints.arm("set.cloned=error")
        again = await platform.ask_for_current(workspace_id, other)
        assert await platform.wait(workspace_id, again) is TaskState.FAILED
        await platform.cancel(workspace_id, again)
        assert await platform.drop(workspace_id, other) is TaskState.SUCCEEDED
        await platform.until_swept(workspace_id)


async def test_a_refused_kind_of_error_is_not_retried(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "x").write_text("x")
        platform.live(workspace_id).rename(platform.volume / "elsewhere")
        snapshot_id, state = await platform.snapshot(workspace_id)
        assert state is TaskState.FAILED
        assert (await platform.workspace(workspace_id)).snapshots[snapshot_id].state is SnapshotState.FAILED
    assert "task.attempt_failed.v1" not in await platform.events(workspace_id)


async def test_a_claim_for_which_the_disk_of_the_database_has_no_room_uses_the_reserve(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[float] = []

    def make_room(_reserve: DiskReserve, *, keep: float) -> bool:
        kept.append(keep)
        with psycopg.connect(platform.url, autocommit=True) as connection:
            connection.execute("DROP TRIGGER IF EXISTS no_room ON wvs.lanes")
        return True

    monkeypatch.setattr(DiskReserve, "make_room", make_room)
    workspace_id, task_id = await platform.ask_for_workspace()
    await platform.pool.execute(
        "CREATE FUNCTION wvs.no_room() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )
    await platform.pool.execute(
        "CREATE TRIGGER no_room BEFORE UPDATE ON wvs.lanes FOR EACH ROW WHEN (NEW.fence > OLD.fence) "
        "EXECUTE FUNCTION wvs.no_room()"
    )
    async with platform.running():
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    # two slots can meet the full disk at once
    assert set(kept) == {KEPT_FOR_DROPS}
