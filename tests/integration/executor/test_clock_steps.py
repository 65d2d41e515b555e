"""The clock of the executor's host is set during a freeze: no duration changes, no end comes before its beginning."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Struct
from tests.integration.executor.conftest import Platform, platform
from tests.integration.executor.platform import value

from wvs.domain.states import TaskState
from wvs.domain.values import Certificate, CloneReport
from wvs.executor import operations
from wvs.executor.cloning import ProvenClone
from wvs.executor.workbench import Job
from wvs.telemetry.metrics import Metrics

__all__ = ["platform"]

LONGEST_S = 60.0


class Made(Struct):
    """The fields of snapshot.created and current.set that have times."""

    certificate: Certificate
    report: CloneReport


class Stored(Struct):
    """A stored event."""

    event: Made


class SteppedClock(datetime):
    """The wall clock as every module of the executor reads it."""

    offset = timedelta(0)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + cls.offset


@pytest.fixture
def step_during_the_clone(monkeypatch: pytest.MonkeyPatch, step: timedelta) -> None:
    readers = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("wvs.executor.") and getattr(module, "datetime", None) is datetime
    ]
    assert readers
    for module in readers:
        monkeypatch.setattr(module, "datetime", SteppedClock)
    monkeypatch.setattr(SteppedClock, "offset", timedelta(0))
    real = operations.clone_proven

    async def clone(job: Job, source: str, point: str) -> ProvenClone:
        result = await real(job, source, point)
        SteppedClock.offset = step
        return result

    monkeypatch.setattr(operations, "clone_proven", clone)


async def consistent(platform: Platform, task_id: UUID) -> None:
    """The event of the task has a proof and a report without a trace of the step, and so has the task itself."""
    SteppedClock.offset = timedelta(0)  # for the next task
    row = await platform.pool.fetchrow("SELECT started_at, finished_at FROM wvs.tasks WHERE id = $1", task_id)
    assert row is not None
    assert timedelta(0) < row["finished_at"] - row["started_at"] < timedelta(seconds=LONGEST_S)
    query = "SELECT state FROM wvs.events WHERE task_id = $1 AND topic IN ('snapshot.created.v1', 'current.set.v1')"
    made = msgspec.json.decode(await platform.pool.fetchval(query, task_id), type=Stored).event
    proof, report = made.certificate, made.report
    held = proof.resumed_at - proof.frozen_at
    assert abs(held - timedelta(seconds=report.freeze_s)) < timedelta(seconds=1)
    assert 0 < report.freeze_s < LONGEST_S
    assert abs(proof.frozen_at - datetime.now(UTC)) < timedelta(seconds=LONGEST_S)


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(hours=1)])
async def test_a_step_of_the_clock_shows_in_no_proof_no_report_and_no_metric(
    step_during_the_clone: None, platform: Platform
) -> None:
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
        snapshot_id, task_id = await platform.ask_for_snapshot(workspace_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        await consistent(platform, task_id)
        task_id = await platform.ask_for_current(workspace_id, snapshot_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
        await consistent(platform, task_id)
    for name in ("wvs_freeze_seconds_sum", "wvs_quiesce_duration_seconds_sum", "wvs_task_duration_seconds_sum"):
        labels = {"outcome": "frozen"} if "quiesce" in name else {}
        for kind in ("snapshot_create", "current_set") if "task" in name else (None,):
            more = {} if kind is None else {"kind": kind, "outcome": "succeeded"}
            assert 0 < value(metrics, name, **labels, **more) < 2 * LONGEST_S, name


async def test_a_clock_of_the_database_that_was_set_back_gives_no_negative_wait(platform: Platform) -> None:
    """Executors and the database share no other clock than the database's."""
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
    _, task_id = await platform.ask_for_snapshot(workspace_id)
    await platform.pool.execute("UPDATE wvs.queue SET queued_at = now() + interval '1 h'")
    metrics = Metrics()
    async with platform.running(metrics):
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    labels = {"kind": "snapshot_create", "outcome": "succeeded"}
    assert 0 < value(metrics, "wvs_task_duration_seconds_sum", **labels) < LONGEST_S
