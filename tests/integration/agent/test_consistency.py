"""A share of the proof: snapshots of programs that never rest keep every invariant across files."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Service
from tests.integration.agent.writing import __file__ as program
from tests.integration.agent.writing import broken

from wvs.domain.states import TaskState

SNAPSHOTS = 20


async def test_snapshots_of_busy_programs_keep_every_invariant(service: Service, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    wrapped = await service.run(sys.executable, program)
    assert await wrapped.line() == "ready"
    steps: set[bytes] = set()
    for _ in range(SNAPSHOTS):
        await asyncio.sleep(0.05)
        snapshot_id, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        tree = await service.tree(snapshot_id)
        assert broken(tree, scratch) == []
        steps.add((tree / "first").read_bytes())
    assert len(steps) == SNAPSHOTS, "the program did not run between the snapshots"


@pytest.mark.campaign  # needs a clone that is slow beside the writer: not on every machine
async def test_without_a_freeze_the_stamps_catch_what_the_program_writes(service: Service, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    free = await asyncio.create_subprocess_exec(
        sys.executable, program, cwd=service.live, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert free.stdout is not None
        await free.stdout.readline()
        taking = asyncio.create_task(service.snapshot())
        async with asyncio.timeout(20):
            while not await service.attempts_failed():
                await asyncio.sleep(0.05)
    finally:
        # Both processes: the first is the leader of their group.
        os.killpg(free.pid, 9)
        await free.wait()
    assert set(await service.attempts_failed()) == {"TORN_CLONE"}
    snapshot_id, state = await taking
    assert state is TaskState.SUCCEEDED
    assert broken(await service.tree(snapshot_id), scratch) == []
