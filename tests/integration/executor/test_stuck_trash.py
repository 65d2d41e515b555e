"""A tree that cannot be removed shows in the task, in the sweep, in `wvs volume check` and in a metric.

A mount point in the tree stands for whatever resists: it stops root, too.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from tests.integration.engines.filesystems import Namespace
from tests.integration.executor.platform import Platform, eventually, value
from tests.skips import need_root

from wvs.cli.wvs.volumes import run_check
from wvs.domain.commands import RetryTask
from wvs.domain.errors import ErrorCode
from wvs.domain.states import TaskState
from wvs.engines.volume.opening import open_volume
from wvs.executor.volume_sweep import _sweep_alone, sweep_volume
from wvs.executor.workbench import Workbench
from wvs.executor.workspace_sweep import Action
from wvs.telemetry.metrics import Metrics


@pytest.fixture
async def bench(platform: Platform, namespace: Namespace) -> AsyncIterator[Workbench]:
    need_root("mounting")
    namespace.enter()  # before threads start: a thread sees the mounts of the thread that started it
    volume = open_volume(str(platform.volume))
    settings = msgspec.structs.replace(platform.settings_with_volume(), database_url=platform.url)
    with ThreadPoolExecutor(2) as threads:
        yield Workbench("sweep-test", volume, platform.path, threads, settings, Metrics())


def unmount(point: Path) -> None:
    subprocess.run(["umount", point], check=True)


@pytest.fixture
def mounted() -> Iterator[Callable[[Path], None]]:
    """Mounts a filesystem at a new directory; the test unmounts it, or fails."""
    points: list[Path] = []

    def mount(point: Path) -> None:
        point.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
        points.append(point)

    yield mount
    for point in points:
        subprocess.run(["umount", point], check=False, capture_output=True)


async def checked(bench: Workbench, capsys: pytest.CaptureFixture[str], *, repair: bool = False) -> str:
    """What `wvs volume check` prints."""
    await asyncio.to_thread(run_check, bench.settings, repair=repair)
    return capsys.readouterr().out


async def test_a_tree_that_stays_in_the_trash_ends_no_sweep_and_is_seen_until_it_is_gone(
    platform: Platform, bench: Workbench, mounted: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        snapshot_id = await platform.ready_snapshot(workspace_id)
    home, old = platform.home(workspace_id), platform.live_tree(workspace_id)
    mounted(home / "live" / "root" / "mounted")
    metrics = Metrics()
    async with platform.running(metrics):
        assert await platform.set_current(workspace_id, snapshot_id, reset=True) is TaskState.SUCCEEDED

        async def not_discarded() -> bool:
            return value(metrics, "wvs_ignored_failures_total", where="discard") == 1

        await eventually(not_discarded)
    reason = bench.volume.why_it_stays(home.name, old)
    assert "root/mounted is a mount point" in reason
    assert "unmount it" in reason
    assert reason in await checked(bench, capsys), "a check that repairs nothing knows it from the last removal"

    (home / "trees" / "by hand").mkdir()
    findings = {(finding.action, finding.name): finding.detail for finding in await sweep_volume(bench)}
    assert findings[Action.STUCK, old] == reason
    assert (Action.QUARANTINED, "by hand") in findings, "the sweep went on"
    assert await _sweep_alone(bench, platform.url)
    assert value(bench.metrics, "wvs_volume_stuck_trees") == 1
    assert reason in await checked(bench, capsys, repair=True)

    unmount(home / "trash" / old / "root" / "mounted")
    assert await _sweep_alone(bench, platform.url)
    assert value(bench.metrics, "wvs_volume_stuck_trees") == 0
    assert (await checked(bench, capsys)).endswith("the volume matches the log\n")


async def test_a_drop_that_a_person_has_to_help_fails_at_once_with_the_cure(
    platform: Platform, bench: Workbench, mounted: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        snapshot_id = await platform.ready_snapshot(workspace_id)
        tree = str((await platform.workspace(workspace_id)).snapshots[snapshot_id].tree)
        home = platform.home(workspace_id)
        mounted(home / "trees" / tree / "root" / "mounted")
        task_id = await platform.ask_for_drop(workspace_id, snapshot_id)
        assert await platform.wait(workspace_id, task_id) is TaskState.FAILED
        error = await platform.error(task_id)
        assert error.code is ErrorCode.REMOVE_FAILED
        assert "root/mounted is a mount point" in error.detail
        assert str(home / "trash" / tree) in error.detail
        assert "unmount it" in error.hint
        assert (await platform.task_row(task_id))["attempt"] == 1, "waiting removes no mount"
        assert error.detail in await checked(bench, capsys)

        unmount(home / "trash" / tree / "root" / "mounted")
        await platform.execute(workspace_id, RetryTask(task_id))
        assert await platform.wait(workspace_id, task_id) is TaskState.SUCCEEDED
    assert (await checked(bench, capsys)).endswith("the volume matches the log\n")
