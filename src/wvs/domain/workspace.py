"""The aggregate's state: what `decide` needs to know, and no more.

Snapshots and tasks are kept in persistent maps, so that one event costs O(log n) and an older state stays valid. Of a
task that ended only its state is kept: a command that names the task is answered correctly, for one map entry.
The order in which a map is iterated is random (its hash is seeded): no rule may depend on it.
"""

from datetime import datetime
from uuid import UUID

from msgspec import Struct
from rpds import HashTrieMap

from wvs.domain.states import RETRYABLE_STATES, SnapshotState, TaskKind, TaskState, WorkspaceState

SCHEMA_VERSION = 2
"""The version of the memento's layout. A memento of another version is discarded and the log is replayed instead."""


class Task(Struct, frozen=True, gc=False, array_like=True):
    """A task that can still have an effect: queued, running or failed. `attempt` counts those started.

    `volume_away_since` is set while the task waits for a volume that no attempt could use.
    """

    id: UUID
    kind: TaskKind
    state: TaskState
    snapshot_id: UUID | None = None
    attempt: int = 0
    fence: int = 0
    tree: str | None = None
    reset: bool = False
    touched: bool = False
    cancel_requested: bool = False
    volume_away_since: datetime | None = None


class Snapshot(Struct, frozen=True, gc=False, array_like=True):
    """A snapshot. `before_drop` is its state before a drop; `tasks` are the retryable tasks that reference it."""

    id: UUID
    state: SnapshotState
    tree: str | None = None
    before_drop: SnapshotState | None = None
    tasks: tuple[UUID, ...] = ()


class Workspace(Struct, frozen=True):
    """One workspace as of `version`, the number of its events.

    `queued` is in the order of acceptance and its first is the lane's head; `movers` are the queued or running tasks
    that may move the pointer.
    """

    id: UUID
    version: int
    state: WorkspaceState
    current: UUID | None = None
    epoch: int = 0
    live_tree: str | None = None
    fence: int = 0
    init_task: UUID | None = None
    queued: tuple[UUID, ...] = ()
    running: UUID | None = None
    movers: tuple[UUID, ...] = ()
    snapshots: "HashTrieMap[UUID, Snapshot]" = HashTrieMap()  # quoted: the class takes no parameters at run time
    tasks: "HashTrieMap[UUID, Task]" = HashTrieMap()
    ended: "HashTrieMap[UUID, TaskState]" = HashTrieMap()

    def task_state(self, task_id: UUID) -> TaskState | None:
        """The state of a task of this workspace, ended ones included; None if it never had a task with this id."""
        task = self.tasks.get(task_id)
        return task.state if task is not None else self.ended.get(task_id)

    def blockers(self, snapshot_id: UUID) -> list[UUID]:
        """The retryable tasks that hold a reference on the snapshot, oldest first."""
        return [t for t in self.snapshots[snapshot_id].tasks if self.tasks[t].state in RETRYABLE_STATES]
