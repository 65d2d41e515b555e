"""Checks Postgres after every step against the log alone.

The audit reads the new events of each workspace, folds and projects them one by one, and compares the read models, the
lane and the queue with the result. It reads everything of one look in one database snapshot.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import dict_row

from wvs.domain.events import CurrentSet, SnapshotCreated, SnapshotDropRequested, TaskStarted, WorkspaceInitialized
from wvs.domain.evolve import evolve
from wvs.domain.states import RETRYABLE_STATES, SnapshotState, TaskKind, TaskState
from wvs.domain.values import Metadata
from wvs.domain.workspace import Workspace
from wvs.eventlog.chain import GENESIS, next_hash
from wvs.eventlog.codec import decode
from wvs.readmodel.changes import KEYS, Change, Insert, Table
from wvs.readmodel.projector import project

Row = dict[str, Any]

GOING = frozenset({SnapshotState.DROPPING, SnapshotState.DROP_FAILED, SnapshotState.DROPPED})
_LOG = """SELECT originator_version, topic, state, hash FROM wvs.events
          WHERE originator_id = %s AND originator_version > %s ORDER BY originator_version"""


@dataclass
class History:
    """One workspace according to its log."""

    id: UUID
    workspace: Workspace | None = None
    hash: bytes = GENESIS
    tables: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    trees: set[str] = field(default_factory=set)
    fence: int = 0
    effects: dict[str, set[str]] = field(default_factory=dict)
    """For each idempotency key, the ids of the client requests that had an effect."""


@dataclass(frozen=True)
class Look:
    """One consistent look at a workspace: its state according to the log, and its rows in Postgres."""

    workspace: Workspace
    rows: dict[Table, list[Row]]
    lane: Row


class LogAudit:
    """Looks at workspaces. It remembers the events that it read, so that each look reads only the new ones."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._cursor = self._connection.cursor(row_factory=dict_row)
        self._histories: dict[UUID, History] = {}

    def close(self) -> None:
        self._connection.close()

    def look(self, workspace_id: UUID) -> Look:
        """Checks everything that follows from the log; raises `AssertionError` at the first difference."""
        history = self._histories.setdefault(workspace_id, History(workspace_id))
        connection = self._connection
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            version = 0 if history.workspace is None else history.workspace.version
            events = self._cursor.execute(_LOG, [workspace_id, version]).fetchall()
            rows: dict[Table, list[Row]] = {table: self._rows(table, workspace_id) for table in KEYS}
            lane = self._one("SELECT * FROM wvs.lanes WHERE workspace_id = %s", workspace_id)
            queue = self._all("SELECT * FROM wvs.queue WHERE workspace_id = %s ORDER BY seq", workspace_id)
            stream = self._one("SELECT * FROM wvs.streams WHERE workspace_id = %s", workspace_id)
        for event in events:
            _follow(history, event)
        workspace = history.workspace
        assert workspace is not None, f"workspace {workspace_id} was acknowledged but is not in the log"
        head = (stream["version"], bytes(stream["hash"]))
        assert head == (workspace.version, history.hash), "the head of the stream is not the end of its log"
        _compare_tables(history, rows)
        _compare_states(workspace, rows)
        _compare_queue(workspace, lane, queue)
        assert lane["fence"] >= history.fence, "the lane's fence is behind the log"
        history.fence = lane["fence"]
        return Look(workspace, rows, lane)

    def effects(self, workspace_id: UUID, key: str) -> int:
        """How many requests with this key have changed the workspace."""
        return len(self._histories[workspace_id].effects.get(key, ()))

    def _rows(self, table: Table, workspace_id: UUID) -> list[Row]:
        column = "id" if table == "workspaces" else "workspace_id"
        query = f"SELECT to_jsonb(t) AS row FROM wvs.{table} t WHERE t.{column} = %s"
        return [found["row"] for found in self._all(query, workspace_id)]

    def _all(self, query: str, workspace_id: UUID) -> list[Row]:
        return self._cursor.execute(query.encode(), [workspace_id]).fetchall()

    def _one(self, query: str, workspace_id: UUID) -> Row:
        (row,) = self._all(query, workspace_id)
        return row


def _follow(history: History, stored: Row) -> None:
    """Adds one event: the chain holds, the fold accepts it, and no referenced snapshot is dropped."""
    version, topic, state = stored["originator_version"], stored["topic"], bytes(stored["state"])
    event, metadata = decode(topic, state)
    before = history.workspace
    assert version == (before.version if before else 0) + 1, f"version {version} does not follow"
    history.hash = next_hash(history.hash, history.id, version, topic, state)
    assert history.hash == stored["hash"], f"the hash chain breaks at version {version}"
    history.workspace = evolve(history.id, before, event)
    _note_effect(history, metadata)
    match event:
        case TaskStarted():
            assert before is not None
            assert event.fence > before.fence, f"fence {event.fence} after {before.fence}"
            assert event.tree is None or event.tree not in history.trees, f"tree {event.tree} is intended twice"
            history.trees |= {event.tree} if event.tree else set()
        case SnapshotDropRequested():
            assert before is not None
            assert before.current != event.snapshot_id, "the current snapshot is to be dropped"
            tasks = before.snapshots[event.snapshot_id].tasks
            held = [t for t in tasks if before.tasks[t].state in RETRYABLE_STATES]
            assert not held, f"a snapshot is to be dropped that tasks {held} refer to"
        case CurrentSet():
            assert before is not None
            state_then = before.snapshots[event.snapshot_id].state
            # The snapshot may be found missing while it is cloned, but no drop of it can have begun.
            assert state_then in (SnapshotState.READY, SnapshotState.LOST), f"a {state_then} snapshot became current"
        case _:
            pass
    if isinstance(event, WorkspaceInitialized | SnapshotCreated | CurrentSet):
        assert before is not None
        holder = before.tasks[event.task_id]
        assert (event.tree, event.fence) == (holder.tree, holder.fence), f"{event.tree} is not of {holder}"
    for change in project(history.id, event, metadata):
        row = msgspec.json.decode(msgspec.json.encode(change.row))
        if isinstance(change, Insert):
            history.tables[_row_key(change)] = row
        else:
            history.tables[_row_key(change)].update(row)


def _row_key(change: Change) -> tuple[Any, ...]:
    """The table and the primary key of the changed row."""
    return (change.table, *(change.row[column] for column in KEYS[change.table]))


def _note_effect(history: History, metadata: Metadata) -> None:
    if metadata.idempotency_key is not None and not metadata.actor.startswith("executor:"):
        history.effects.setdefault(metadata.idempotency_key, set()).add(metadata.request_id)


def _compare_tables(history: History, rows: dict[Table, list[Row]]) -> None:
    for table, keys in KEYS.items():
        replayed = {key[1:]: row for key, row in history.tables.items() if key[0] == table}
        stored = {tuple(UUID(row[k]) if _is_id(k) else row[k] for k in keys): row for row in rows[table]}
        assert replayed.keys() == stored.keys(), f"{table}: {replayed.keys() ^ stored.keys()}"
        for key, row in stored.items():
            wanted = {column: _plain(column, replayed[key].get(column)) for column in row}
            found = {column: _plain(column, value) for column, value in row.items()}
            assert wanted == found, f"{table} {key} differs from a replay: {_differing(wanted, found)}"


def _is_id(column: str) -> bool:
    return column == "id" or column.endswith("_id")


def _plain(column: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if column.endswith("_at") and value is not None else value


def _differing(wanted: Row, found: Row) -> str:
    return ", ".join(f"{k}: replay {wanted[k]!r}, stored {found[k]!r}" for k in wanted if wanted[k] != found[k])


def _compare_states(workspace: Workspace, rows: dict[Table, list[Row]]) -> None:
    """The aggregate, which decides, and the rows, which clients see, agree."""
    (row,) = rows["workspaces"]
    current = None if workspace.current is None else str(workspace.current)
    shown = (row["state"], row["current_snapshot_id"], row["epoch"], row["live_tree"])
    assert shown == (workspace.state, current, workspace.epoch, workspace.live_tree)
    states = {UUID(s["id"]): s["state"] for s in rows["snapshots"]}
    assert states == {s.id: s.state for s in workspace.snapshots.values()}
    for task in rows["tasks"]:
        skipped = task["noop"] and task["started_at"] is None  # it was never queued, so the aggregate does not have it
        assert task["state"] == workspace.task_state(UUID(task["id"])) or skipped, task
    running = [t["id"] for t in rows["tasks"] if t["state"] == TaskState.RUNNING]
    assert len(running) <= 1, f"{len(running)} tasks run at once"
    for snapshot in workspace.snapshots.values():
        if snapshot.state in GOING:
            assert workspace.current != snapshot.id, f"current is {snapshot.state}"
            kinds = {workspace.tasks[t].kind for t in workspace.blockers(snapshot.id)}
            assert kinds <= {TaskKind.SNAPSHOT_DROP}, f"a {snapshot.state} snapshot is referenced by {kinds}"
    for snapshot_row in rows["snapshots"]:
        assert (snapshot_row["deleted_at"] is not None) == (snapshot_row["state"] == SnapshotState.DROPPED)


def _compare_queue(workspace: Workspace, lane: Row, queue: list[Row]) -> None:
    """The queue holds exactly the tasks that wait or run, in the order of acceptance.

    A claim changes the queue before the log (`TaskStarted` comes next). Therefore a task may be `running` in the queue
    while it is still `queued` in the log.
    """
    running = [] if workspace.running is None else [workspace.running]
    assert [row["task_id"] for row in queue] == [*running, *workspace.queued], "the queue and the log differ"
    claimed = [row["task_id"] for row in queue if row["state"] == "running"]
    assert len(claimed) <= 1
    assert set(running) <= set(claimed)
    held = [] if lane["task_id"] is None else [lane["task_id"]]
    assert held == claimed, "the lane and the queue differ"
