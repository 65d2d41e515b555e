"""The kernel's freezers with real processes."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.agent.conftest import until
from tests.skips import need_root

from wvs.agent import cgroup_freezer as cgroups
from wvs.agent.cgroup_freezer import CgroupV1Freezer, CgroupV2Freezer, kernel_freezer
from wvs.agent.cgroup_placement import own_cgroup_v1, own_cgroup_v2
from wvs.agent.command import CommandProcess
from wvs.agent.errors import NoFreezer
from wvs.agent.freezer import Freezer

# Forks all the time and counts in a file; its children leave the process group and the session.
COUNTING = "i=0; while true; do i=$((i+1)); echo $i > count.new; setsid mv count.new count; done"


@pytest.fixture
async def freezer(cgroup_kind: type[CgroupV2Freezer] | type[CgroupV1Freezer]) -> AsyncIterator[Freezer]:
    try:
        own = own_cgroup_v2() if cgroup_kind is CgroupV2Freezer else own_cgroup_v1()
        freezer = cgroup_kind(own / f"wvs-{uuid.uuid4().hex}")
    except NoFreezer as reason:
        pytest.skip(f"no cgroup can be used here: {reason}")
    yield freezer
    await freezer.kill()
    freezer.close()
    assert not freezer.directory.exists()


def count(directory: Path) -> int:
    try:
        return int((directory / "count").read_text() or 0)
    except FileNotFoundError:
        return 0


async def counting(directory: Path, freezer: Freezer) -> CommandProcess:
    command = CommandProcess(["sh", "-c", COUNTING], str(directory), os.environ, freezer)
    await until(lambda: count(directory) > 3)
    return command


async def test_a_frozen_tree_does_not_run_until_the_thaw(freezer: Freezer, tmp_path: Path) -> None:
    await counting(tmp_path, freezer)
    await freezer.freeze()
    before = sorted(tmp_path.iterdir()), count(tmp_path)
    assert freezer.still_frozen()
    await asyncio.sleep(0.2)
    assert (sorted(tmp_path.iterdir()), count(tmp_path)) == before
    assert freezer.still_frozen()
    await freezer.thaw()
    assert not freezer.still_frozen()
    await until(lambda: count(tmp_path) > before[1])


async def test_a_frozen_tree_is_killed_without_resuming(freezer: Freezer, tmp_path: Path) -> None:
    command = await counting(tmp_path, freezer)
    await freezer.freeze()
    before = count(tmp_path)
    await freezer.kill()
    assert freezer.pids() == []
    assert command.reap() == 128 + 9
    assert count(tmp_path) == before


async def test_a_thaw_by_another_process_is_noticed(freezer: Freezer, tmp_path: Path) -> None:
    await counting(tmp_path, freezer)
    await freezer.freeze()
    match freezer:
        case CgroupV2Freezer():
            (freezer.directory / "cgroup.freeze").write_text("0")
        case CgroupV1Freezer():
            (freezer.directory / "freezer.state").write_text("THAWED")
        case _:
            pytest.fail("another kind of freezer")
    assert not freezer.still_frozen()


async def test_a_thaw_followed_by_a_freeze_is_noticed(tmp_path: Path) -> None:
    try:
        freezer = CgroupV2Freezer(own_cgroup_v2() / f"wvs-{uuid.uuid4().hex}")
    except NoFreezer as reason:
        pytest.skip(f"no cgroup can be used here: {reason}")
    try:
        await counting(tmp_path, freezer)
        await freezer.freeze()
        await asyncio.sleep(0.05)
        assert freezer.still_frozen()
        switch, events = freezer.directory / "cgroup.freeze", freezer.directory / "cgroup.events"
        switch.write_text("0")
        await until(lambda: "frozen 0" in events.read_text())
        switch.write_text("1")
        await until(lambda: "frozen 1" in events.read_text())
        await until(lambda: not freezer.still_frozen(), 1)
    finally:
        await freezer.kill()
        freezer.close()


async def test_a_process_that_ends_while_it_is_frozen_breaks_the_freeze(freezer: Freezer, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import os, time; os.fork(); open('up', 'a').write('x'); time.sleep(60)"]
    CommandProcess(argv, str(tmp_path), os.environ, freezer)
    await until(lambda: (tmp_path / "up").exists() and (tmp_path / "up").read_text() == "xx")
    await freezer.freeze()
    os.kill(max(freezer.pids()), 9)
    if isinstance(freezer, CgroupV1Freezer):
        pytest.skip("in v1 the signal waits for the thaw")
    await until(lambda: not freezer.still_frozen(), 2)


async def test_without_cgroups_the_error_names_every_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroups, "own_cgroup_v2", lambda: tmp_path / "absent")
    monkeypatch.setattr(cgroups, "own_cgroup_v1", lambda: tmp_path)
    with pytest.raises(NoFreezer, match=r"absent.*No such file.*v1 freezer cannot be used"):
        kernel_freezer("wvs-x")
    assert list(tmp_path.iterdir()) == []


def test_without_the_right_to_create_a_cgroup_the_error_says_so() -> None:
    code = (
        "import os\nfrom wvs.agent.cgroup_freezer import kernel_freezer\n"
        "os.setuid(65534)\nkernel_freezer('wvs-x').close()"
    )
    need_root("becoming another user")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "NoFreezer: cannot create a cgroup in" in result.stderr


async def test_quick_successive_freezes_are_not_mistaken_for_foreign_thaws(freezer: Freezer, tmp_path: Path) -> None:
    await counting(tmp_path, freezer)
    for _ in range(20):
        await freezer.freeze()
        await asyncio.sleep(0.03)
        assert freezer.still_frozen()
        await freezer.thaw()


async def test_a_tree_that_always_forks_is_frozen_every_time(freezer: Freezer, tmp_path: Path) -> None:
    """v1 sometimes overlooks a process that is entering a vfork, and stays at FREEZING until the next write."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        await counting(tmp_path / name, freezer)
    for _ in range(100):
        async with asyncio.timeout(30):
            await freezer.freeze()
        assert freezer.still_frozen()
        await freezer.thaw()
