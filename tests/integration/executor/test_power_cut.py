"""After a power cut at any moment every committed tree exists unaltered, and every dropped tree is gone.

The volume is on a disk that records its writes and flushes. A real executor works on it while another process keeps the
file system busy. Then the test rebuilds the disk as a power cut leaves it, mounts it, and compares it.

`make test` tries the moment of each commit and a few others; `make powercut` tries WVS_POWER_CUTS moments.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.integration.engines.powercut import RecordedDisk, cuts
from tests.integration.engines.trees import Entry, account
from tests.integration.executor.platform import Platform

from wvs.domain.states import TaskState
from wvs.engines.volume import switching
from wvs.engines.volume.opening import init_volume, open_volume
from wvs.engines.volume.volume import Volume
from wvs.executor import operations
from wvs.failpoints import failpoint

pytestmark = pytest.mark.timeout(3600 if os.environ.get("WVS_POWER_CUTS") else 300)

ENGINE_ON = {"ext4": "copy", "xfs": "reflink", "btrfs": "btrfs"}


class Promise(Struct, frozen=True):
    """What WVS promises of one tree between two lengths of the disk's log. Without content it must be gone.

    `at_path`: the workspace's path shows it.
    """

    tree: str
    content: dict[bytes, Entry] | None
    begins: int
    ends: float = float("inf")
    at_path: bool = False


@pytest.fixture
def disk(namespace: Namespace, filesystem: str, request: pytest.FixtureRequest) -> Iterator[RecordedDisk]:
    try:
        made = RecordedDisk(namespace, filesystem, f"{filesystem}-{abs(hash(request.node.name)) % 10**6}")
    except Unavailable as error:
        pytest.skip(str(error))
    yield made
    made.close()


class Story:
    """An executor's work on a recorded disk, and when it promised what."""

    def __init__(self, platform: Platform, disk: RecordedDisk) -> None:
        self._platform = platform
        self.disk = disk
        self._passed: dict[str, int] = {}
        self.promises: list[Promise] = []

    def note(self, name: str) -> None:
        """In place of the operations' failpoints: the disk's log is this long now."""
        self._passed[name] = self.disk.now()
        failpoint(name)

    async def run(self) -> None:
        platform = self._platform
        async with platform.running():
            workspace_id = await platform.create()
            self.home = platform.home(workspace_id)
            first = await self._snapshot(workspace_id, "one")
            second = await self._snapshot(workspace_id, "two")
            assert await platform.set_current(workspace_id, first) is TaskState.SUCCEEDED
            live = platform.live_tree(workspace_id)
            content = account(self._root(workspace_id, live))
            self.promises.append(Promise(live, content, self._passed["set.committed"], self.disk.now()))
            self.promises.append(Promise(live, content, self._passed["set.switched"], self.disk.now(), at_path=True))
            await self._drop(workspace_id, second)
            await self._snapshot(workspace_id, "three")

    async def _snapshot(self, workspace_id: UUID, text: str) -> UUID:
        live = self._platform.live(workspace_id)
        for number in range(30):
            (live / f"{text}-{number}").write_bytes(os.urandom(number * 200))
        (live / "changed").write_text(text)
        (live / "linked").unlink(missing_ok=True)
        os.link(live / "changed", live / "linked")
        snapshot_id = await self._platform.ready_snapshot(workspace_id)
        tree = await self._tree(workspace_id, snapshot_id)
        content = account(self._root(workspace_id, tree))
        self.promises.append(Promise(tree, content, self._passed["create.committed"]))
        return snapshot_id

    async def _drop(self, workspace_id: UUID, snapshot_id: UUID) -> None:
        tree = await self._tree(workspace_id, snapshot_id)
        assert await self._platform.drop(workspace_id, snapshot_id) is TaskState.SUCCEEDED
        number, promise = next((n, p) for n, p in enumerate(self.promises) if p.tree == tree)
        self.promises[number] = Promise(tree, promise.content, promise.begins, self._passed["drop.started"])
        self.promises.append(Promise(tree, None, self._passed["drop.committed"]))

    async def _tree(self, workspace_id: UUID, snapshot_id: UUID) -> str:
        return str((await self._platform.workspace(workspace_id)).snapshots[snapshot_id].tree)

    def _root(self, workspace_id: UUID, tree: str) -> Path:
        return self._platform.root(workspace_id, tree)


def broken(home: Path, promise: Promise) -> str | None:
    """The violations of a tree, in a volume after a cut."""
    named = [file.parent for file in (home / "live" / "name", *home.glob("*/*/name")) if file.exists()]
    found = [wrapper for wrapper in named if (wrapper / "name").read_text().strip() == promise.tree]
    if promise.content is None:
        return f"{promise.tree} was dropped and is back" if found else None
    if len(found) != 1 or not (found[0] / "root").is_dir():
        return f"{promise.tree} is missing"
    if promise.at_path and found[0] != home / "live":
        return f"{promise.tree} is no longer at the path"
    root = found[0] / "root"
    return None if account(root) == promise.content else f"{promise.tree} is altered"


@contextmanager
def busy(directory: Path) -> Iterator[None]:
    """A thread writes to the same filesystem all the time and never syncs, so that a cut always loses data."""
    directory.mkdir()
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.wait(0.005):
            number += 1
            (directory / str(number % 100)).write_bytes(os.urandom(5000))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


async def recorded_story(
    platform: Platform, disk: RecordedDisk, monkeypatch: pytest.MonkeyPatch, filesystem: str
) -> Story:
    platform.volume = disk.point / "volume"
    init_volume(str(platform.volume), UUID(int=1), ENGINE_ON[filesystem])  # type: ignore[arg-type]
    story = Story(platform, disk)
    monkeypatch.setattr(operations, "failpoint", story.note)
    with busy(disk.point / "noise"):
        await story.run()
    return story


def violations(story: Story, number: int, seed: str) -> tuple[int, list[str]]:
    """The number of cuts, and the violations after each."""
    story.disk.unmount()  # two filesystems of one UUID cannot be mounted, and btrfs might show the one for the other
    wrong: list[str] = []
    marks = [promise.begins for promise in story.promises]
    tried = list(cuts(story.disk.log, marks, number, seed))
    for cut in tried:
        with story.disk.found(cut) as point:
            open_volume(str(point / "volume"))
            home = point / story.home.relative_to(story.disk.point)
            valid = [promise for promise in story.promises if promise.begins <= cut.at < promise.ends]
            wrong += [f"cut at {cut.at}: {what}" for what in (broken(home, each) for each in valid) if what]
    return len(tried), wrong


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
async def test_a_power_cut_takes_nothing_that_was_committed(
    platform: Platform,
    disk: RecordedDisk,
    filesystem: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    story = await recorded_story(platform, disk, monkeypatch, filesystem)
    number = int(os.environ.get("WVS_POWER_CUTS", "4"))
    seed = os.environ.get("WVS_FAULTS_SEED", "1")
    tried, wrong = await asyncio.to_thread(violations, story, number, seed)
    assert wrong == []
    record_property("summary", f"power cuts on {filesystem}: {tried} of {tried} moments, 0 violations")


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
async def test_without_the_sync_before_the_commit_a_power_cut_would_show(
    platform: Platform, disk: RecordedDisk, filesystem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the test above would prove nothing."""
    monkeypatch.setattr(Volume, "sync", lambda *_: None)
    story = await recorded_story(platform, disk, monkeypatch, filesystem)
    _, wrong = await asyncio.to_thread(violations, story, 0, "1")
    assert wrong


class UnsyncedOs:
    """The module `os` for hands that are stopped before each sync."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, _descriptor: int) -> None:
        pass


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
async def test_a_switch_is_durable_once_it_has_ended_though_the_hand_that_exchanged_was_stopped_before_its_sync(
    platform: Platform, disk: RecordedDisk, filesystem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "os", UnsyncedOs())
    story = await recorded_story(platform, disk, monkeypatch, filesystem)
    story.promises = [promise for promise in story.promises if promise.at_path]
    tried, wrong = await asyncio.to_thread(violations, story, 0, "1")
    assert tried
    assert wrong == []
