"""Snapshots of programs that never rest keep every invariant across files."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Service
from tests.integration.agent.writing import __file__ as program
from tests.integration.agent.writing import broken

from wvs.domain.states import TaskState
from wvs.executor import cloning

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


async def test_without_a_freeze_the_stamps_catch_what_the_program_writes(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    free = await asyncio.create_subprocess_exec(
        sys.executable, program, cwd=service.live, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )

    writes = True

    def hold_until_written(name: str) -> None:
        """Makes sure that the program writes between the two stamps, however fast the clone is."""
        before, ends = (service.live / "first").read_bytes(), time.monotonic() + 60
        while name == "create.stamped" and writes and time.monotonic() < ends:
            if (service.live / "first").read_bytes() != before:
                return
            time.sleep(0.001)

    monkeypatch.setattr(cloning, "failpoint", hold_until_written)
    try:
        assert free.stdout is not None
        await free.stdout.readline()
        snapshot_id, task_id = await service.platform.ask_for_snapshot(service.workspace_id)
        async with asyncio.timeout(60):
            while not await service.attempts_failed():
                await asyncio.sleep(0.02)
    finally:
        writes = False
        # All its processes: the first one leads their group.
        os.killpg(free.pid, 9)
        await free.wait()
    assert await service.platform.wait(service.workspace_id, task_id, 60) is TaskState.SUCCEEDED
    assert set(await service.attempts_failed()) == {"TORN_CLONE"}
    assert broken(await service.tree(snapshot_id), scratch) == []
