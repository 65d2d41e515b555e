"""State machine A: random commands go to the pure domain and to a model of dicts; the two must always agree.

A step is one decided command; the test asserts a least number of them. WVS_PROPERTY_EXAMPLES selects a longer, random
campaign (`make property`); without it every run is the same.
"""

import asyncio
import os
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.property import workspace_invariants as invariants
from tests.property.lane_model import Lane
from tests.property.model_of_outcomes import Model
from tests.unit.domain.story import ASKED_TO_END, FINAL, HOLDER_GONE, NO_SOURCE, NOW, RETRYABLE, finish_of, tree_of
from wvs.domain import refusals
from wvs.domain.commands import (
    CancelTask,
    Command,
    CreateSnapshot,
    CreateWorkspace,
    DisableWorkspace,
    DropSnapshot,
    EvictSession,
    FailAttempt,
    HandBack,
    ReportFound,
    ReportLost,
    RetryInit,
    RetryTask,
    SetCurrent,
    StartTask,
)
from wvs.domain.decide import decide
from wvs.domain.errors import Refused
from wvs.domain.events import Event
from wvs.domain.evolve import evolve, fold
from wvs.domain.ids import TASK, format_id
from wvs.domain.states import TaskKind
from wvs.domain.values import TaskError
from wvs.domain.workspace import Workspace
from wvs.eventlog.mementos import decode_memento, encode_memento

EXAMPLES = int(os.environ.get("WVS_PROPERTY_EXAMPLES", "0"))
STEPS_PER_EXAMPLE = 100
QUEUE_LIMIT = 6
"""Small, so that the queue is often full; `tests/unit/domain/test_attempts.py` tests the real limit."""

WORKSPACE_ID = UUID(int=1)
NOBODY = UUID(int=2)
ERRORS = [RETRYABLE, RETRYABLE, FINAL, ASKED_TO_END, NO_SOURCE]
PICK = st.sampled_from([1, 1, 2, 2, 3, 4, 5, 6, 7, 0])
BEGINNINGS = ["active"] * 8 + ["initializing"] * 3 + ["init_failed"] * 3 + ["absent"]
MOSTLY = st.sampled_from([True] * 9 + [False])

WEIGHTS = {
    "create_snapshot": 5,
    "set_current": 5,
    "set_what_is_current": 2,
    "drop": 4,
    "cancel_task": 3,
    "retry_task": 4,
    "start": 5,
    "run_next": 8,
    "finish": 2,
    "fail": 5,
    "hand_back": 1,
    "report_lost": 1,
    "report_found": 1,
    "create_workspace": 1,
    "retry_init": 1,
    "disable": 1,
    "evict": 1,
    "load_from_a_memento": 1,
}
MIX = [name for name, weight in WEIGHTS.items() for _ in range(weight)]

campaign: list[str] = []
"""The expected answer to each command, over all examples of this process."""


class DomainMachine(RuleBasedStateMachine):
    """One workspace and its model. `pick` counts from the newest id backwards; 0 is an unknown id."""

    def __init__(self) -> None:
        super().__init__()
        self.workspace: Workspace | None = None
        self.log: list[Event] = []
        self.model = Model(QUEUE_LIMIT)
        self.lane = Lane()
        self.draw: Any = None
        self.ids = 100

    def new(self) -> UUID:
        self.ids += 1
        return UUID(int=self.ids)

    def a_task(self) -> UUID:
        return _from_the_end(list(self.model.tasks), self.draw(PICK))

    def a_snapshot(self) -> UUID:
        return _from_the_end(list(self.model.snapshots), self.draw(PICK))

    def head(self) -> UUID:
        running = self.model.running()
        return running if running is not None else next(iter(self.model.lane), NOBODY)

    def head_mostly(self) -> UUID:
        return self.head() if self.draw(MOSTLY) else self.a_task()

    def held(self) -> UUID:
        """A running task, which it starts if necessary; sometimes a task that does not run."""
        if self.model.running() is None and self.draw(MOSTLY):
            self.start_task(self.head(), self.model.fence + 1)
        return self.head_mostly()

    def a_fence(self) -> int:
        return self.model.fence if self.draw(MOSTLY) else self.model.fence - 1

    def ask(self, command: Command, expected: list[str] | str) -> Refused | None:
        """One step: the domain must answer like the model, and must decide the same a second time."""
        answer = _answer(command, self.workspace)
        campaign.append(expected if isinstance(expected, str) else ", ".join(expected))
        if isinstance(answer, Refused):
            assert answer.code == expected, f"{command}: {answer}, expected {expected}"
            return answer
        events = answer
        assert [type(event).__name__ for event in events] == expected, f"{command}: {events}, expected {expected}"
        assert decide(command, self.workspace) == events
        for event in events:
            self.workspace = evolve(WORKSPACE_ID, self.workspace, event)
        self.log += events
        self.lane.apply(command, events)
        return None

    @initialize(begin=st.sampled_from(BEGINNINGS))
    def begin(self, begin: str) -> None:
        """Most examples begin with an active workspace, some during its init, a few without a workspace."""
        if begin != "absent":
            self.create_workspace()
        if begin == "active":
            self.run_next()
        if begin == "init_failed":
            self.start_task(self.head(), 1)
            self.fail_attempt(self.head(), 1, FINAL, touched=True)

    @rule(name=st.sampled_from(MIX), data=st.data())
    def someone_asks(self, name: str, data: st.DataObject) -> None:
        """One rule for all commands. With one rule each, Hypothesis would disable half of them in most examples."""
        self.draw = data.draw
        getattr(self, name)()

    def create_workspace(self) -> None:
        task = self.new()
        self.ask(CreateWorkspace("agent-7", {}, task), self.model.create_workspace(task))

    def retry_init(self) -> None:
        task = self.new()
        self.ask(RetryInit(task), self.model.retry_init(task))

    def disable(self) -> None:
        if len(self.log) > 40:
            self.ask(DisableWorkspace(), self.model.disable())

    def evict(self) -> None:
        self.ask(EvictSession(NOBODY), self.model.evict())

    def create_snapshot(self) -> None:
        snapshot, task = self.new(), self.new()
        self.ask(CreateSnapshot(snapshot, task, None, {}), self.model.create_snapshot(snapshot, task))

    def set_current(self) -> None:
        snapshot, task, reset = self.a_snapshot(), self.new(), self.draw(st.booleans())
        distances = self.draw(st.sampled_from([None, None, {0}, {0, 1}, {-1}, set[int]()]))
        allowed = None if distances is None else frozenset(self.model.epoch + distance for distance in distances)
        expected = self.model.set_current(snapshot, task, reset=reset, if_epochs=allowed)
        self.ask(SetCurrent(snapshot, task, reset, allowed), expected)

    def set_what_is_current(self) -> None:
        snapshot, task, reset = self.model.current or NOBODY, self.new(), self.draw(st.booleans())
        expected = self.model.set_current(snapshot, task, reset=reset, if_epochs=None)
        self.ask(SetCurrent(snapshot, task, reset), expected)

    def drop(self) -> None:
        snapshot, task = self.a_snapshot(), self.new()
        refused = self.ask(DropSnapshot(snapshot, task), self.model.drop(snapshot, task))
        if refused is not None and refused.code == "SNAPSHOT_IN_USE":
            assert refused.fields["blockers"] == [_blocker(b) for b in self.model.blockers]

    def retry_task(self) -> None:
        failed = [t for t, task in self.model.tasks.items() if task["state"] == "failed"]
        task = self.draw(st.sampled_from(failed)) if failed and self.draw(MOSTLY) else self.a_task()
        self.ask(RetryTask(task), self.model.retry_task(task))

    def cancel_task(self) -> None:
        task = self.head() if self.draw(st.booleans()) else self.a_task()
        self.ask(CancelTask(task), self.model.cancel_task(task))

    def start(self) -> None:
        self.start_task(self.head_mostly(), self.model.fence + self.draw(st.sampled_from([1, 1, 1, 2, 0])))

    def start_task(self, task: UUID, fence: int) -> None:
        command = StartTask(task, fence, "executor-1", tree_of(task, fence), NOW, HOLDER_GONE)
        self.ask(command, self.model.start(task, fence))

    def finish(self) -> None:
        task, fence = self.head_mostly(), self.a_fence()
        right = task in self.model.tasks and self.draw(MOSTLY)
        kind = TaskKind(self.model.tasks[task]["kind"]) if right else self.draw(st.sampled_from(TaskKind))
        self.ask(finish_of(kind, task, fence), self.model.finish(task, fence, kind))

    def run_next(self) -> None:
        """The next task succeeds. Without this step few examples would have a second snapshot."""
        task = self.head()
        if self.model.running() is None:
            self.start_task(task, self.model.fence + 1)
        if task == self.model.running():
            kind, fence = TaskKind(self.model.tasks[task]["kind"]), self.model.fence
            self.ask(finish_of(kind, task, fence), self.model.finish(task, fence, kind))

    def fail(self) -> None:
        task, fence, touched = self.held(), self.a_fence(), self.draw(st.booleans())
        self.fail_attempt(task, fence, self.draw(st.sampled_from(ERRORS)), touched=touched)

    def fail_attempt(self, task: UUID, fence: int, why: TaskError, *, touched: bool) -> None:
        expected = self.model.fail(task, fence, touched=touched, retryable=why.retryable, code=why.code)
        self.ask(FailAttempt(task, fence, why, NOW, 0.0, touched), expected)

    def hand_back(self) -> None:
        task, fence, touched = self.held(), self.a_fence(), self.draw(st.booleans())
        self.ask(HandBack(task, fence, NOW, touched), self.model.hand_back(task, fence, touched=touched))

    def report_lost(self) -> None:
        snapshot = self.a_snapshot()
        self.ask(ReportLost(snapshot, "ENOENT"), self.model.report_lost(snapshot))

    def report_found(self) -> None:
        lost = [s for s, snapshot in self.model.snapshots.items() if snapshot["state"] == "lost"]
        snapshot = self.draw(st.sampled_from(lost)) if lost and self.draw(MOSTLY) else self.a_snapshot()
        self.ask(ReportFound(snapshot, "it is there again"), self.model.report_found(snapshot))

    def load_from_a_memento(self) -> None:
        """A cold load gives exactly the cached workspace."""
        if self.workspace is not None:
            loaded = asyncio.run(_loaded_again(self.workspace))
            assert loaded == self.workspace
            self.workspace = loaded

    @precondition(lambda self: self.workspace is not None)
    @invariant()
    def everything_holds(self) -> None:
        assert self.workspace is not None
        invariants.the_workspace_is_what_the_model_says(self.workspace, self.model)
        invariants.what_must_always_hold(self.workspace, self.log)
        invariants.references_are_those_of_the_tasks(self.workspace)
        invariants.the_queue_knows_what_the_workspace_knows(self.workspace, self.lane)

    def teardown(self) -> None:
        """Both a replay of the whole log and a replay in two parts give the workspace of the example."""
        assert fold(WORKSPACE_ID, self.log) == self.workspace
        middle = len(self.log) // 2
        assert fold(WORKSPACE_ID, self.log[middle:], fold(WORKSPACE_ID, self.log[:middle])) == self.workspace


def test_domain_and_model_agree_on_ten_thousand_random_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    campaign.clear()
    monkeypatch.setattr(refusals, "QUEUE_LIMIT", QUEUE_LIMIT)
    run_state_machine_as_test(
        DomainMachine,
        settings=settings(
            max_examples=EXAMPLES or 150,
            stateful_step_count=STEPS_PER_EXAMPLE,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    assert len(campaign) >= 10_000
    met = {name for answer in campaign for name in answer.split(", ")}
    assert {event.__name__ for event in get_args(Event)} <= met, "some events never occurred, so they were not tested"


def _answer(command: Command, workspace: Workspace | None) -> list[Event] | Refused:
    try:
        return decide(command, workspace)
    except Refused as refused:
        return refused


def _from_the_end(ids: list[UUID], pick: int) -> UUID:
    return ids[-1 - pick % len(ids)] if ids and pick else NOBODY


def _blocker(blocker: Any) -> dict[str, str]:
    return {"kind": "current"} if blocker == "current" else {"kind": "task", "id": format_id(TASK, blocker)}


async def _loaded_again(workspace: Workspace) -> Workspace:
    return await decode_memento(await encode_memento(workspace))
