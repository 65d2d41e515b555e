"""State machine B: a workspace's whole life over HTTP, on a real Postgres, real processes and real directories.

Rules request every operation of the API and inject every fault that the design survives. After each step the test
checks the log, the volume and the journal of the clone engine (`platform/log_audit`, `disk_audit`). Whenever no task is
open, it also compares the workspace with a model of plain dicts (`platform/workspace_model`). At the end, `history`
must show at every version what the API showed then (`platform/past_audit`).

WVS_PROPERTY_ROUNDS selects a longer campaign with other seeds (`make property`); WVS_PROPERTY_SEED is the first seed.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from tests.property.platform.fault_rules import FaultRules
from tests.property.platform.harness import Harness
from tests.property.platform.story_machine import picks

ROUNDS = int(os.environ.get("WVS_PROPERTY_ROUNDS", "0"))
FIRST_SEED = int(os.environ.get("WVS_PROPERTY_SEED") or 20261123)
SEEDS = range(FIRST_SEED, FIRST_SEED + max(1, ROUNDS))
EXAMPLES = 10
STEPS_PER_EXAMPLE = 30


class PlatformMachine(FaultRules):
    """All rules, and the invariants that must hold after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.story.create_workspace()
        for content in (b"one", b"two"):
            self.write(at=0, edits=[("directory", 1, b""), ("write", 3, content), ("link", 4, b"")])
            self.snapshot(at=0, patient=True)
        self.model(0, patient=True)

    @rule(at=picks)
    def wait(self, at: int) -> None:
        self.model(at, patient=True)

    @invariant()
    def everything_holds(self) -> None:
        self.harness.steps += 1
        self.story.note(f"step {self.harness.steps}")
        self.with_directory(self.story.check)

    def teardown(self) -> None:
        """Without faults every task becomes final, and after a sweep every directory has an owner."""
        if sys.exc_info()[0] is None:  # otherwise a step has failed, and its error is the one to show
            self.with_directory(self._end)

    def _end(self) -> None:
        self.harness.end_faults()
        for model in self.story.models:
            self.story.settle(model)
        for snapshot in list(self.story.blocked):
            self.unblock(snapshot)
        self.story.check()
        self.harness.sweep()
        for model in self.story.models:
            self.story.check_swept(model)
        self.harness.pasts += self.story.pasts.check(self.harness.client)


@pytest.fixture
def harness(database_url: str, tmp_path: Path) -> Iterator[Harness]:
    running = Harness(database_url, tmp_path)
    yield running
    running.close()


@pytest.mark.timeout(0 if ROUNDS else 600)
@pytest.mark.parametrize("first", SEEDS)
def test_the_platform_keeps_its_promises_under_random_requests_and_faults(
    harness: Harness, first: int, record_property: Any
) -> None:
    machine = type("PlatformMachine", (PlatformMachine,), {"harness": harness})
    run_state_machine_as_test(
        seed(first)(machine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS_PER_EXAMPLE,
            database=None,
            deadline=None,
            phases=[Phase.generate],  # the timing of processes differs each time: a smaller example proves nothing
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )
    assert harness.pasts >= 3 * EXAMPLES, "the test compared the history of too few versions"
    record_property("summary", f"platform machine: {harness.steps} steps, {harness.pasts} pasts, seed {first}")
