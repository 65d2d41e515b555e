"""The freeze protocol under faults of agents, executors, the network and the database's clock.

Two invariants: every published clone was made while all agents were frozen, and every live agent runs again. A member
that confirms with the right token although it ran is not simulated: only the stamps can notice that.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.property.freeze_world import Agent, Bed, World
from wvs.domain.errors import ErrorCode
from wvs.domain.states import TaskKind
from wvs.executor.freeze_driver import Freeze
from wvs.quiesce.sessions import SessionState

EXAMPLES = int(os.environ.get("WVS_PROPERTY_EXAMPLES", "0")) or 25
SEED = int(os.environ.get("WVS_PROPERTY_SEED") or 20261123)
STEPS = 40
MOST_AGENTS = 5

picks = st.integers(min_value=0, max_value=99)
kinds = st.sampled_from([TaskKind.SNAPSHOT_CREATE, TaskKind.SNAPSHOT_CREATE, TaskKind.CURRENT_SET])
seldom = st.sampled_from([False, False, False, True])


class FreezeMachine(RuleBasedStateMachine):
    """It has no preconditions: the progress of the executor depends on timing and must not influence the draws."""

    bed: Bed

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.bed.pool, self.bed.metrics)
        self.checked = 0
        self._do(self.world.begin())
        for _ in range(2):
            self._do(self.world.register())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self.bed.run(work)
        self.bed.run(self.world.settle())

    def _agent(self, pick: int) -> Agent | None:
        present = [a for a in self.world.agents if a.is_registered and a.has_wrapper]
        return present[pick % len(present)] if present else None

    @rule()
    def register(self) -> None:
        if len(self.world.agents) < MOST_AGENTS:
            self._do(self.world.register())

    @rule(kind=kinds)
    def executor_opens(self, kind: TaskKind) -> None:
        if self.world.attempt is None:
            self._do(self.world.claim(kind))

    @rule(pick=picks, lost=seldom, refuses=seldom)
    def agent_polls(self, pick: int, *, lost: bool, refuses: bool) -> None:
        if agent := self._agent(pick):
            self._do(self.world.poll(agent, lost=lost, refuses=refuses))

    @rule(stages=st.sampled_from([1, 1, 1, 2, 3, 9]), kind=kinds)
    def everybody_advances(self, stages: int, kind: TaskKind) -> None:
        """The next steps of a freeze without faults."""
        for _ in range(stages):
            attempt = self.world.attempt
            if attempt is None:
                self._do(self.world.claim(kind))
            elif attempt.began is not None and not attempt.clone_may_end.is_set():
                self._end_clone()
            elif attempt.published is not None:
                self._follow()
            elif attempt.ended is not None and attempt.members_confirmed:
                self._move_tree()
            else:
                self._all_poll()

    def _all_poll(self) -> None:
        for agent in list(self.world.agents):
            if agent.is_registered and agent.has_wrapper:
                self._do(self.world.poll(agent, lost=False, refuses=False))

    @rule()
    def clone_ends(self) -> None:
        self._end_clone()

    def _end_clone(self) -> None:
        if self.world.attempt is not None and self.world.attempt.began is not None:
            self.world.attempt.clone_may_end.set()
        self.bed.run(self.world.settle())

    @rule()
    def live_tree_moves(self) -> None:
        self._move_tree()

    def _move_tree(self) -> None:
        if self.world.attempt is not None and self.world.attempt.ended is not None:
            self.world.attempt.commit_may_go.set()
        self.bed.run(self.world.settle())

    @rule()
    def path_follows(self) -> None:
        self._follow()

    def _follow(self) -> None:
        if self.world.attempt is not None and self.world.attempt.published is not None:
            self.world.attempt.path_may_follow.set()
        self.bed.run(self.world.settle())

    @rule(pick=picks, chance=st.booleans())
    def agent_thaws_by_itself(self, pick: int, *, chance: bool) -> None:
        """It lost contact, or another process thawed it. During a replacement of the live tree, only after the hold."""
        agent = self._agent(pick)
        moves = self.world.attempt is not None and self.world.attempt.kind is TaskKind.CURRENT_SET
        if not chance or agent is None or agent.runs or (moves and self.bed.run(self.world.holds())):
            return
        if self.world.path_epoch < self.world.epoch:
            return  # only the death of the executor and the loss of contact, each for longer than the hold, lead here
        agent.epoch = self.world.path_epoch
        agent.thaw(self.world.tick())

    @rule(pick=picks, back=st.booleans())
    def late_acknowledgement_arrives(self, pick: int, *, back: bool) -> None:
        """In any order, and possibly more than once."""
        if deliveries := self.world.in_flight:
            deliver = deliveries[pick % len(deliveries)]
            if not back:
                deliveries.remove(deliver)
            self._do(deliver())  # type: ignore[arg-type]

    @rule(pick=picks, lies=seldom)
    def agent_lies_about_its_token(self, pick: int, *, lies: bool) -> None:
        if agent := self._agent(pick):
            agent.lies = lies

    @rule(pick=picks, chance=seldom)
    def wrapper_is_killed(self, pick: int, *, chance: bool) -> None:
        if chance and (agent := self._agent(pick)):
            agent.has_wrapper = False

    @rule(pick=picks, chance=seldom, evicted=st.booleans())
    def session_ends(self, pick: int, *, chance: bool, evicted: bool) -> None:
        present = [a for a in self.world.agents if a.is_registered]
        if not chance or not present:
            return
        agent = present[pick % len(present)]
        if not evicted:
            agent.change(runs=False, now=self.world.tick())
        self._do(self.world.remove(agent, SessionState.EVICTED if evicted else SessionState.ENDED))

    @rule(chance=seldom, seconds=st.sampled_from([1.0, 31.0, 31.0, 100.0]), back=st.booleans())
    def clock_jumps(self, seconds: float, *, chance: bool, back: bool) -> None:
        """Not back while a live tree is being replaced: that also relies on the agent's own deadline."""
        attempt = self.world.attempt
        if not chance or (back and attempt is not None and attempt.kind is TaskKind.CURRENT_SET):
            return
        self._do(self.world.jump(-seconds if back else seconds))

    @rule(chance=seldom, reaped=st.booleans())
    def executor_is_killed(self, *, chance: bool, reaped: bool) -> None:
        if chance and self.world.attempt is not None:
            self._do(self.world.kill_executor())
            if reaped:
                self._do(self.world.reap())

    @rule(chance=st.booleans())
    def executor_gives_up(self, *, chance: bool) -> None:
        """Its budget has run out, or the task was cancelled."""
        if chance and self.world.attempt is not None:
            self.world.attempt.cancel.request("over", ErrorCode.QUIESCE_TIMEOUT)
            self.bed.run(self.world.settle())

    @rule(chance=seldom)
    def reaper_mistakes_a_live_executor_for_dead(self, *, chance: bool) -> None:
        if chance:
            self._do(self.world.reap())

    @invariant()
    def every_published_clone_was_frozen(self) -> None:
        self.bed.steps += 1
        for attempt in self.world.finished[self.checked :]:
            kind = "published" if attempt.published else str(attempt.error and attempt.error.code)
            self.bed.outcomes[kind] = self.bed.outcomes.get(kind, 0) + 1
            if attempt.published is None or attempt.began is None or attempt.ended is None:
                continue
            for agent in self.world.agents:
                if not agent.is_evicted and agent.ran_within(attempt.began, attempt.ended):
                    violation = f"{agent.id} ran within {attempt.began}..{attempt.ended}: {agent.moments}"
                    self.bed.violations.append(violation)
                    raise AssertionError(violation)
        self.checked = len(self.world.finished)

    @invariant()
    def no_agent_runs_in_a_tree_that_was_replaced(self) -> None:
        for agent in self.world.running_in_old_tree():
            violation = (
                f"{agent.id} runs in the live tree {agent.epoch}, which is {self.world.epoch} by now: {agent.moments}"
            )
            self.bed.violations.append(violation)
            raise AssertionError(violation)

    def teardown(self) -> None:
        """Without further faults the freeze of a killed executor expires, and every live agent resumes."""
        world = self.world
        if world.attempt is not None:
            self._do(world.kill_executor())
        self._do(world.jump(10_000))
        self._do(world.follow())
        for agent in world.agents:
            if agent.is_registered and agent.has_wrapper:
                for _ in range(2):
                    self._do(world.poll(agent, lost=False, refuses=False))
                assert sys.exc_info()[0] is not None or agent.runs, f"{agent.id} stays frozen for ever"


def play(bed: Bed, examples: int) -> None:
    run_state_machine_as_test(
        seed(SEED)(type("FreezeMachine", (FreezeMachine,), {"bed": bed})),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.timeout(0 if EXAMPLES > 25 else 600)
def test_every_published_clone_was_frozen_and_every_agent_runs_again(bed: Bed, record_property: Any) -> None:
    play(bed, EXAMPLES)
    record_property("summary", f"freeze machine: {bed.steps} steps, {dict(sorted(bed.outcomes.items()))}")
    assert bed.outcomes.get("published", 0) > 0, "no clone was published, so this run proves nothing"


async def _confirm_nothing(self: Freeze, *, resume: bool) -> None:
    self.outcome = "frozen"


def _without_question(monkeypatch: pytest.MonkeyPatch, bed: Bed) -> None:
    monkeypatch.setattr(Freeze, "confirm", _confirm_nothing)


def _without_tokens(monkeypatch: pytest.MonkeyPatch, bed: Bed) -> None:
    bed.take_out("acknowledge", "WHEN m.token IS DISTINCT FROM p_token THEN 'broken'")


def _without_a_freeze_for_the_move(monkeypatch: pytest.MonkeyPatch, bed: Bed) -> None:
    bed.run(bed.pool.execute("DROP TRIGGER lanes_require_freeze ON wvs.lanes"))


def _resumed_in_the_old_tree(monkeypatch: pytest.MonkeyPatch, bed: Bed) -> None:
    for function in ("directive_for", "acknowledge_together_v2"):
        bed.take_out(function, "AND s.epoch = w.epoch")


def _everybody_resumed(monkeypatch: pytest.MonkeyPatch, bed: Bed) -> None:
    real = Freeze.confirm

    async def confirm(self: Freeze, *, resume: bool) -> None:
        await real(self, resume=True)

    monkeypatch.setattr(Freeze, "confirm", confirm)
    bed.take_out("require_freeze", "OR v_freeze.resumes ")


PLANTED: dict[str, Callable[[pytest.MonkeyPatch, Bed], None]] = {
    "no member is asked to confirm": _without_question,
    "tokens are not compared": _without_tokens,
    "a tree moves without its freeze": _without_a_freeze_for_the_move,
    "a tree moves after its agents resumed": _everybody_resumed,
    "agents of the old tree resume": _resumed_in_the_old_tree,
}


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, bed: Bed, monkeypatch: pytest.MonkeyPatch, record_property: Any) -> None:
    PLANTED[bug](monkeypatch, bed)
    with contextlib.suppress(AssertionError, BaseExceptionGroup, HypothesisException):
        play(bed, 2000)  # the same draws may have another timing when repeated: the first violation counts
    assert bed.violations
    record_property("summary", f"{bug}: found after {bed.steps} steps")
