"""The rules of a workspace a second time, in plain dicts and lists: the commands of clients.

Each method is one command. It changes the model and returns the names of the events to expect, or the code that refuses
the command. It uses nothing of `wvs`. It finds references, movers and blockers by a look at every task, never by
bookkeeping.
"""

from typing import Any

Answer = list[str] | str
OPEN = ("queued", "running")
RETRYABLE = ("queued", "running", "failed")


class Requests:
    """`tasks` and `snapshots` are in the order accepted; `lane` is the order of the queued tasks."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.state = "absent"
        self.current: Any = None
        self.epoch = 0
        self.fence = 0
        self.init_task: Any = None
        self.tasks: dict[Any, dict[str, Any]] = {}
        self.snapshots: dict[Any, dict[str, Any]] = {}
        self.lane: list[Any] = []
        self.blockers: list[Any] = []

    def running(self) -> Any:
        return next((t for t, task in self.tasks.items() if task["state"] == "running"), None)

    def movers(self) -> list[Any]:
        return [t for t, task in self.tasks.items() if task["kind"] == "current_set" and task["state"] in OPEN]

    def referring(self, snapshot: Any) -> list[Any]:
        return [t for t, task in self.tasks.items() if task["snapshot"] == snapshot and task["state"] in RETRYABLE]

    def unfit(self) -> str | None:
        if self.state == "absent":
            return "WORKSPACE_NOT_FOUND"
        if self.state == "disabled":
            return "WORKSPACE_DISABLED"
        return None

    def inactive(self) -> str | None:
        return self.unfit() or (None if self.state == "active" else "WORKSPACE_NOT_ACTIVE")

    def _full(self) -> bool:
        return len(self.lane) >= self.limit

    def _accept(self, task: Any, kind: str, snapshot: Any = None, *, reset: bool = False) -> None:
        self.tasks[task] = {
            "kind": kind,
            "state": "queued",
            "snapshot": snapshot,
            "reset": reset,
            "attempt": 0,
            "fence": 0,
            "asked": False,
            "begun": False,
        }
        self.lane.append(task)

    def create_workspace(self, task: Any) -> Answer:
        if self.state != "absent":
            return "WORKSPACE_NAME_TAKEN"
        self.state, self.init_task = "initializing", task
        self._accept(task, "workspace_init")
        return ["WorkspaceCreated"]

    def retry_init(self, task: Any) -> Answer:
        if refused := self.unfit():
            return refused
        if self.state != "init_failed":
            return "WORKSPACE_NOT_INIT_FAILED"
        if self.tasks[self.init_task]["state"] == "failed":
            return self.retry_task(self.init_task)
        self.state, self.init_task = "initializing", task
        self._accept(task, "workspace_init")
        return ["WorkspaceInitRetried"]

    def disable(self) -> Answer:
        if self.state == "absent":
            return "WORKSPACE_NOT_FOUND"
        if self.state == "disabled":
            return []
        self.state = "disabled"
        events = ["WorkspaceDisabled"]
        for task in list(self.lane):
            self.end_cancelled(task)
            events.append("TaskCancelled")
        running = self.running()
        if running is not None and not self.tasks[running]["asked"]:
            self.tasks[running]["asked"] = True
            events.append("TaskCancelRequested")
        return events

    def evict(self) -> Answer:
        return self.unfit() or ["SessionEvicted"]

    def create_snapshot(self, snapshot: Any, task: Any) -> Answer:
        if refused := self.inactive():
            return refused
        if self._full():
            return "WORKSPACE_QUEUE_FULL"
        self.snapshots[snapshot] = {"state": "creating", "was_ready": False}
        self._accept(task, "snapshot_create", snapshot)
        return ["SnapshotRequested"]

    def set_current(self, snapshot: Any, task: Any, *, reset: bool, if_epochs: frozenset[int] | None) -> Answer:
        if refused := self.inactive() or self._no_snapshot(snapshot):
            return refused
        if if_epochs is not None and (self.epoch not in if_epochs or self.movers()):
            return "CURRENT_CHANGED"
        if snapshot == self.current and not reset and not self.movers():
            self._accept(task, "current_set", snapshot)
            self.lane.remove(task)
            self.tasks[task]["state"] = "succeeded"
            return ["CurrentSetSkipped"]
        if self.snapshots[snapshot]["state"] != "ready":
            return "SNAPSHOT_NOT_READY"
        if self._full():
            return "WORKSPACE_QUEUE_FULL"
        self._accept(task, "current_set", snapshot, reset=reset)
        return ["CurrentSetRequested"]

    def drop(self, snapshot: Any, task: Any) -> Answer:
        disabled = self.state == "disabled"
        gone = disabled and self.snapshots.get(snapshot, {}).get("state") in ("lost", "drop_failed")
        if refused := (None if gone else self.inactive()) or self._no_snapshot(snapshot):
            return refused
        referring = self.referring(snapshot)
        failed_drops = [
            t for t in referring if self.tasks[t]["kind"] == "snapshot_drop" and self.tasks[t]["state"] == "failed"
        ]
        self.blockers = ["current"] if self.current == snapshot and not disabled else []
        self.blockers += [t for t in referring if t not in failed_drops]
        if self.blockers:
            return "SNAPSHOT_IN_USE"
        if self._full():
            return "WORKSPACE_QUEUE_FULL"
        for failed in failed_drops:
            self.tasks[failed]["state"] = "cancelled"
        self._begin_drop(snapshot)
        self._accept(task, "snapshot_drop", snapshot)
        return ["TaskCancelled"] * len(failed_drops) + ["SnapshotDropRequested"]

    def _begin_drop(self, snapshot: Any) -> None:
        before = self.snapshots[snapshot]["state"]
        self.snapshots[snapshot] = {"state": "dropping", "was_ready": before == "ready"}

    def _no_snapshot(self, snapshot: Any) -> str | None:
        if snapshot not in self.snapshots:
            return "SNAPSHOT_NOT_FOUND"
        return "SNAPSHOT_DROPPED" if self.snapshots[snapshot]["state"] == "dropped" else None

    def retry_task(self, task_id: Any) -> Answer:
        task = self.tasks.get(task_id)
        if refused := self.unfit():
            return refused
        if task is None:
            return "TASK_NOT_FOUND"
        if task["state"] != "failed":
            return "TASK_NOT_RETRYABLE"
        if task["kind"] == "current_set" and self.snapshots[task["snapshot"]]["state"] != "ready":
            return "SNAPSHOT_NOT_READY"
        if task["kind"] != "workspace_init" and self._full():
            return "WORKSPACE_QUEUE_FULL"
        task |= {"state": "queued", "attempt": 0, "begun": True}
        self.lane.append(task_id)
        if task["kind"] == "workspace_init":
            self.state = "initializing"
            return ["WorkspaceInitRetried"]
        if task["kind"] == "snapshot_create":
            self.snapshots[task["snapshot"]]["state"] = "creating"
        if task["kind"] == "snapshot_drop":
            self._begin_drop(task["snapshot"])
        return ["TaskRetried"]

    def cancel_task(self, task_id: Any) -> Answer:
        task = self.tasks.get(task_id)
        if refused := self.unfit():
            return refused
        if task is None:
            return "TASK_NOT_FOUND"
        if task["state"] in ("succeeded", "cancelled"):
            return "TASK_NOT_CANCELLABLE"
        if task["state"] == "running":
            repeated, task["asked"] = task["asked"], True
            return [] if repeated else ["TaskCancelRequested"]
        self.end_cancelled(task_id)
        return ["TaskCancelled"]

    def end_cancelled(self, task_id: Any) -> None:
        task = self.tasks[task_id]
        abandoned, task["state"] = task["state"] == "failed", "cancelled"
        if task_id in self.lane:
            self.lane.remove(task_id)
        if abandoned:
            return
        if task["kind"] == "workspace_init" and self.state == "initializing":
            self.state = "init_failed"
        if task["kind"] == "snapshot_create":
            self.snapshots[task["snapshot"]]["state"] = "failed"
        if task["kind"] == "snapshot_drop":
            snapshot = self.snapshots[task["snapshot"]]
            snapshot["state"] = "ready" if snapshot["was_ready"] and not task["begun"] else "drop_failed"
