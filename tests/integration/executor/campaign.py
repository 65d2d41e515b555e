"""The campaign's stories: for each failpoint an operation that passes it, and the invariants at the end.

A story prepares its workspace with the armed executor itself, whose failpoint only the operation meets; where it lies
on the way to it, the preparation is left to an executor without failpoints.
"""

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from uuid import UUID

from msgspec import Struct
from tests.integration.executor.platform import Platform, eventually
from tests.integration.executor.processes import ExecutorProcess, Executors

from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import SnapshotState, TaskKind, TaskState
from wvs.engines.volume.opening import open_volume
from wvs.failpoints import NAMES

BTRFS: Final = "btrfs-on-btrfs"
KINDS: Final = ("copy-on-ext4", "reflink-on-xfs", BTRFS, "juicefs-on-juicefs")
WITHOUT_MOUNT: Final = "copy-on-here"
_SHARE: Final = {"kill": 6, "stop": 3, "cut": 3}
"""Points of each action in a run that does not try all, besides one on each of two other engines."""
_PATIENCE_S: Final = 60.0


class Asked(Struct, frozen=True):
    """The requests of the story: a workspace, and the tasks that must succeed."""

    workspace_id: UUID
    tasks: tuple[UUID, ...]


class Scene:
    """One point's volume, database and executors."""

    def __init__(self, platform: Platform, executors: Executors) -> None:
        self.platform = platform
        self.executors = executors
        self.contents: dict[UUID, dict[str, bytes]] = {}

    async def prepared(self, snapshots: int = 0) -> tuple[UUID, list[UUID]]:
        """A workspace and its snapshots, each of another content, made by an executor that has ended."""
        async with self.platform.running():
            workspace_id = await self.platform.create()
            made = [await self._snapshot(workspace_id, number) for number in range(snapshots)]
        self._write(workspace_id, snapshots)
        return workspace_id, made

    async def _snapshot(self, workspace_id: UUID, number: int) -> UUID:
        self._write(workspace_id, number)
        snapshot_id = await self.platform.ready_snapshot(workspace_id)
        self.contents[snapshot_id] = read_tree(self.platform.live(workspace_id))
        return snapshot_id

    def _write(self, workspace_id: UUID, number: int) -> None:
        live = self.platform.live(workspace_id)
        (live / "deep").mkdir(exist_ok=True)
        (live / "a").write_text(f"content {number}")
        (live / "deep" / f"only in {number}").write_text("x" * number)


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


Story = Callable[[Scene], Awaitable[Asked]]


async def init(scene: Scene) -> Asked:
    workspace_id, task_id = await scene.platform.ask_for_workspace()
    return Asked(workspace_id, (task_id,))


async def create(scene: Scene) -> Asked:
    workspace_id, _ = await scene.prepared(snapshots=1)
    snapshot_id, task_id = await scene.platform.ask_for_snapshot(workspace_id)
    scene.contents[snapshot_id] = read_tree(scene.platform.live(workspace_id))
    return Asked(workspace_id, (task_id,))


async def set_current(scene: Scene) -> Asked:
    workspace_id, (older, _) = await scene.prepared(snapshots=2)
    return Asked(workspace_id, (await scene.platform.ask_for_current(workspace_id, older),))


async def drop(scene: Scene) -> Asked:
    workspace_id, (older, _) = await scene.prepared(snapshots=2)
    return Asked(workspace_id, (await scene.platform.ask_for_drop(workspace_id, older),))


async def sweep(scene: Scene) -> Asked:
    """One of each: an abandoned tree come back, an unknown directory, a lost snapshot, a link to a removed tree."""
    platform = scene.platform
    workspace_id, (dropped, lost, _) = await scene.prepared(snapshots=3)
    async with platform.running():
        assert await platform.drop(workspace_id, dropped) is TaskState.SUCCEEDED
    workspace = await platform.workspace(workspace_id)
    home = platform.home(workspace_id)
    obsolete = await platform.pool.fetchval(
        "SELECT name FROM wvs.trees WHERE workspace_id = $1 AND state = 'removed'", workspace_id
    )
    (home / "trees" / obsolete / "root").mkdir(parents=True)
    (home / "trees" / "stranger").mkdir()
    lose(platform, workspace_id, str(workspace.snapshots[lost].tree))
    del scene.contents[lost]
    (home / "current").unlink()
    (home / "current").symlink_to(f"trees/{obsolete}/root")
    return Asked(workspace_id, ())


def lose(platform: Platform, workspace_id: UUID, tree: str) -> None:
    """Removes a tree behind the log's back, sealed as it may be."""
    volume = open_volume(str(platform.volume))
    workspace = format_id(WORKSPACE, workspace_id)
    volume.retire(workspace, tree)
    volume.purge(workspace, tree)


STORIES: Final[dict[str, Story]] = {
    "init": init,
    "freeze": set_current,
    "create": create,
    "set": set_current,
    "drop": drop,
    "fail": create,
    "discard": set_current,
    "link": set_current,
    "sweep": sweep,
}

ALSO_ARMED: Final = {"fail.recorded": "create.cloned=error@1"}
"""The condition under which the operation passes the point at all."""


def points(action: str) -> list[tuple[str, str]]:
    """Pairs of engine and point to try: all with WVS_FAULTS=all, else a share that WVS_FAULTS_SEED chooses."""
    if os.environ.get("WVS_FAULTS") == "all":
        return [(kind, name) for kind in KINDS for name in names(kind)]
    chosen = random.Random(f"{os.environ.get('WVS_FAULTS_SEED', '1')} {action}")
    kinds = [WITHOUT_MOUNT] * _SHARE[action] + chosen.sample(KINDS[1:], 2)
    return list(zip(kinds, chosen.sample(names(BTRFS), len(kinds)), strict=True))


def names(kind: str) -> list[str]:
    """The failpoints that operations pass on this engine: a btrfs snapshot is one system call, without a middle."""
    return [name for name in NAMES if kind != BTRFS or not name.endswith(".cloning")]


async def story(scene: Scene, point: str, action: str, **settings: str) -> tuple[Asked, ExecutorProcess]:
    """Runs an executor into `point`; returns the story's tasks and that executor, dead or stopped."""
    asked = await STORIES[point.split(".", maxsplit=1)[0]](scene)
    armed = ",".join(filter(None, [ALSO_ARMED.get(point), f"{point}={action}@1"]))
    process = scene.executors.start(failpoints=armed, **settings)
    if action == "kill":
        assert await process.ended(_PATIENCE_S) == -9, f"{point} was not reached"
    else:
        await process.until_stopped(_PATIENCE_S)
    return asked, process


async def violations(scene: Scene, asked: Asked) -> list[str]:
    """The violations, once everything has ended and was swept."""
    platform, workspace_id = scene.platform, asked.workspace_id
    states = [(task, await platform.wait(workspace_id, task, _PATIENCE_S)) for task in asked.tasks]
    found = [f"task {task} is {state}" for task, state in states if state is not TaskState.SUCCEEDED]
    await eventually(lambda: settled(platform, workspace_id), _PATIENCE_S)
    await platform.until_swept(workspace_id, _PATIENCE_S)
    workspace = await platform.workspace(workspace_id)
    if platform.live_tree(workspace_id) != workspace.live_tree:
        found.append(f"the link names {platform.live_tree(workspace_id)}, Postgres {workspace.live_tree}")
    for snapshot in workspace.snapshots.values():
        if snapshot.state is SnapshotState.READY:
            root = platform.home(workspace_id) / "trees" / str(snapshot.tree) / "root"
            if read_tree(root) != scene.contents[snapshot.id]:
                found.append(f"snapshot {snapshot.id} is not what it was when it was made")
    if workspace.current is not None:
        current = read_tree(platform.live(workspace_id))
        if current != scene.contents[workspace.current]:
            found.append("the live tree is not its snapshot")
    found += await applied_twice(platform, workspace_id, workspace.epoch)
    if await platform.pool.fetchval("SELECT count(*) FROM wvs.queue WHERE workspace_id = $1", workspace_id):
        found.append("something is left in the queue")
    return found


async def settled(platform: Platform, workspace_id: UUID) -> bool:
    """Waits for the right link: a sweep corrects it last."""
    workspace = await platform.workspace(workspace_id)
    return platform.live(workspace_id).is_symlink() and platform.live_tree(workspace_id) == workspace.live_tree


ENDS: Final = {
    "workspace.initialized.v1": TaskKind.WORKSPACE_INIT,
    "snapshot.created.v1": TaskKind.SNAPSHOT_CREATE,
    "current.set.v1": TaskKind.CURRENT_SET,
    "snapshot.dropped.v1": TaskKind.SNAPSHOT_DROP,
}


async def applied_twice(platform: Platform, workspace_id: UUID, epoch: int) -> list[str]:
    rows = await platform.pool.fetch(
        "SELECT topic, task_id FROM wvs.events WHERE originator_id = $1 AND topic = ANY($2)", workspace_id, list(ENDS)
    )
    found = [f"{topic} twice" for topic, task_id in rows if [t for _, t in rows].count(task_id) != 1]
    moves = sum(topic in ("workspace.initialized.v1", "current.set.v1") for topic, _ in rows)
    return [*found, *([] if moves == epoch else [f"epoch {epoch} after {moves} moves"])]
