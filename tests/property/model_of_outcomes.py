"""The rules of a workspace a second time, in plain dicts and lists: the commands of executors."""

from typing import Any

from tests.property.model_of_requests import Answer, Requests

ATTEMPTS = {"workspace_init": 3, "snapshot_create": 4, "current_set": 4, "snapshot_drop": 6}


class Model(Requests):
    """The whole model. A command with a stale fence changes nothing."""

    def start(self, task_id: Any, fence: int) -> Answer:
        if self.state == "absent":
            return "WORKSPACE_NOT_FOUND"
        running = self.running()
        head = running if running is not None else next(iter(self.lane), None)
        if task_id != head or fence <= self.fence:
            return "LEASE_LOST"
        if running is None:
            return self._begin(task_id, fence)
        self.tasks[task_id]["begun"] = True
        ended = self._attempt_failed(task_id, retryable=True, cancelled=False)
        return ended + self._begin(task_id, fence) if ended == ["TaskAttemptFailed"] else ended

    def _begin(self, task_id: Any, fence: int) -> list[str]:
        task = self.tasks[task_id]
        self.lane.remove(task_id)
        self.fence = fence
        task |= {"state": "running", "fence": fence, "attempt": task["attempt"] + 1}
        if task["kind"] != "current_set":
            return ["TaskStarted"]
        if task["snapshot"] == self.current and not task["reset"]:
            task["state"] = "succeeded"
            return ["TaskStarted", "CurrentSetSkipped"]
        if self.snapshots[task["snapshot"]]["state"] != "ready":
            task["state"] = "failed"
            return ["TaskStarted", "CurrentSetFailed"]
        return ["TaskStarted"]

    def _not_held(self, task_id: Any, fence: int) -> str | None:
        if self.state == "absent":
            return "WORKSPACE_NOT_FOUND"
        held = task_id is not None and task_id == self.running() and self.tasks[task_id]["fence"] == fence
        return None if held else "LEASE_LOST"

    def finish(self, task_id: Any, fence: int, kind: str) -> Answer:
        if refused := self._not_held(task_id, fence):
            return refused
        task = self.tasks[task_id]
        if task["kind"] != kind:
            return "INVALID_REQUEST"
        task["state"] = "succeeded"
        match kind:
            case "workspace_init":
                self.state = "disabled" if self.state == "disabled" else "active"
                self.epoch = 1
                return ["WorkspaceInitialized"]
            case "snapshot_create":
                self.snapshots[task["snapshot"]]["state"] = "ready"
                return ["SnapshotCreated"]
            case "current_set":
                self.current, self.epoch = task["snapshot"], self.epoch + 1
                return ["CurrentSet"]
            case _:
                self.snapshots[task["snapshot"]]["state"] = "dropped"
                return ["SnapshotDropped"]

    def fail(
        self, task_id: Any, fence: int, *, touched: bool, retryable: bool = False, code: str = "VOLUME_FULL"
    ) -> Answer:
        if refused := self._not_held(task_id, fence):
            return refused
        task = self.tasks[task_id]
        task["begun"] = task["begun"] or touched
        lost: list[str] = []
        source = self.snapshots.get(task["snapshot"], {})
        if code == "TREE_MISSING" and task["kind"] == "current_set" and source["state"] == "ready":
            source["state"] = "lost"
            lost = ["SnapshotLost"]
        return lost + self._attempt_failed(task_id, retryable=retryable, cancelled=code == "CANCELLED")

    def _attempt_failed(self, task_id: Any, *, retryable: bool, cancelled: bool) -> list[str]:
        task = self.tasks[task_id]
        if task["asked"] or cancelled:
            self.end_cancelled(task_id)
            return ["TaskCancelled"]
        if retryable and task["attempt"] < ATTEMPTS[task["kind"]]:
            task["state"] = "queued"
            self.lane.insert(0, task_id)
            return ["TaskAttemptFailed"]
        task["state"] = "failed"
        match task["kind"]:
            case "workspace_init":
                self.state = "init_failed"
                return ["WorkspaceInitFailed"]
            case "snapshot_create":
                self.snapshots[task["snapshot"]]["state"] = "failed"
                return ["SnapshotFailed"]
            case "current_set":
                return ["CurrentSetFailed"]
            case _:
                self.snapshots[task["snapshot"]]["state"] = "drop_failed"
                return ["SnapshotDropFailed"]

    def hand_back(self, task_id: Any, fence: int, *, touched: bool) -> Answer:
        if refused := self._not_held(task_id, fence):
            return refused
        task = self.tasks[task_id]
        task["begun"] = task["begun"] or touched
        if task["asked"]:
            self.end_cancelled(task_id)
            return ["TaskCancelled"]
        task |= {"state": "queued", "attempt": task["attempt"] - 1}
        self.lane.insert(0, task_id)
        return ["TaskAttemptFailed"]

    def report_lost(self, snapshot: Any) -> Answer:
        if self.state == "absent":
            return "WORKSPACE_NOT_FOUND"
        if snapshot not in self.snapshots:
            return "SNAPSHOT_NOT_FOUND"
        if self.snapshots[snapshot]["state"] != "ready":
            return []
        self.snapshots[snapshot]["state"] = "lost"
        return ["SnapshotLost"]

    def report_found(self, snapshot: Any) -> Answer:
        if self.state == "absent":
            return "WORKSPACE_NOT_FOUND"
        if snapshot not in self.snapshots:
            return "SNAPSHOT_NOT_FOUND"
        if self.snapshots[snapshot]["state"] != "lost":
            return []
        self.snapshots[snapshot]["state"] = "ready"
        return ["SnapshotFound"]
