"""A model of one workspace in plain dicts: the rules of the design a second time, without code of `wvs`.

The model predicts every answer while no task is open. Faults decide how a task ends, so the test passes the end to the
model. The model derives what follows (states, pointer, epoch, contents), task by task in accepted order.
"""

from typing import Any

from tests.property.platform.manifests import Manifest, difference

Facts = dict[str, Any]

RETRYABLE = ("queued", "running", "failed")


class WorkspaceModel:
    """The model of the workspace `id`."""

    def __init__(self, workspace_id: str) -> None:
        self.id = workspace_id
        self.facts: Facts = {"state": "initializing", "current": None, "epoch": 0}
        self.snapshots: dict[str, Facts] = {}
        self.tasks: dict[str, Facts] = {}
        self.open: list[str] = []
        """Accepted tasks whose end the model does not know yet, in accepted order."""
        self.live: list[Manifest | None] = [None]
        """The contents that the live tree has had since it was created; None means that it is missing."""
        self.made = 0
        """The number of live trees before this one."""

    def answer_to_create(self) -> tuple[int, str | None]:
        return self._inactive() or (202, None)

    def answer_to_set(self, snapshot: str, *, reset: bool, epochs: set[int] | None) -> tuple[int, str | None]:
        if refusal := self._inactive() or self._dropped(snapshot):
            return refusal
        if epochs is not None and self.facts["epoch"] not in epochs:
            return 412, "CURRENT_CHANGED"
        if self.facts["current"] == snapshot and not reset:
            return 200, None
        return (202, None) if self.snapshots[snapshot]["state"] == "ready" else (409, "SNAPSHOT_NOT_READY")

    def answer_to_drop(self, snapshot: str) -> tuple[int, str | None]:
        damaged = self.snapshots[snapshot]["state"] in ("lost", "drop_failed")
        ends_there = damaged and self.facts["state"] == "disabled"
        refusal = (None if ends_there else self._inactive()) or self._dropped(snapshot)
        return refusal or ((409, "SNAPSHOT_IN_USE") if self.blockers(snapshot) else (202, None))

    def answer_to_retry(self, task: str) -> tuple[int, str | None]:
        facts = self.tasks[task]
        if self.facts["state"] == "disabled":
            return 409, "WORKSPACE_DISABLED"
        if facts["state"] != "failed":
            return 409, "TASK_NOT_RETRYABLE"
        if facts["kind"] == "current_set" and self.snapshots[facts["snapshot"]]["state"] != "ready":
            return 409, "SNAPSHOT_NOT_READY"
        return 202, None

    def answer_to_cancel(self, task: str) -> tuple[int, str | None]:
        if self.facts["state"] == "disabled":
            return 409, "WORKSPACE_DISABLED"
        return (202, None) if self.tasks[task]["state"] in RETRYABLE else (409, "TASK_NOT_CANCELLABLE")

    def answer_to_retry_init(self) -> tuple[int, str | None]:
        if self.facts["state"] == "disabled":
            return 409, "WORKSPACE_DISABLED"
        return (202, None) if self.facts["state"] == "init_failed" else (409, "WORKSPACE_NOT_INIT_FAILED")

    def blockers(self, snapshot: str) -> list[Facts]:
        """The blockers of a drop of the snapshot. A failed drop does not count: a new one takes its place."""
        needed = self.facts["current"] == snapshot and self.facts["state"] != "disabled"
        blockers: list[Facts] = [{"kind": "current"}] if needed else []
        for task, facts in self.tasks.items():
            superseded = facts["kind"] == "snapshot_drop" and facts["state"] == "failed"
            if facts["snapshot"] == snapshot and facts["state"] in RETRYABLE and not superseded:
                blockers.append({"kind": "task", "id": task})
        return blockers

    def accept(self, task: str, kind: str, snapshot: str | None, *, reset: bool = False) -> None:
        """Adds an accepted task, or queues a failed one again."""
        known = self.tasks.get(task)
        reset = reset if known is None else known["reset"]
        self.tasks[task] = {"kind": kind, "snapshot": snapshot, "state": "queued", "reset": reset}
        self.tasks[task].update({"made": self.made, "since": len(self.live) - 1})
        if task not in self.open:
            self.open.append(task)
        if kind == "workspace_init":
            self.facts["state"] = "initializing"
        elif kind == "snapshot_create" and snapshot is not None:
            self.snapshots.setdefault(snapshot, {"content": None})["state"] = "creating"
        elif kind == "snapshot_drop" and snapshot is not None:
            self._drop_begins(task, snapshot, again=known is not None)

    def accept_skipped(self, task: str, snapshot: str) -> None:
        """Adds a no-op: a task that succeeded at once and was never queued."""
        self.tasks[task] = {"kind": "current_set", "snapshot": snapshot, "state": "succeeded", "reset": False}

    def disable(self) -> None:
        self.facts["state"] = "disabled"

    def abandon(self, task: str) -> None:
        """Abandons a failed task, which only releases its reference."""
        self.tasks[task]["state"] = "cancelled"

    def wrote(self, content: Manifest | None) -> None:
        """Notes the new content of the live tree; None: it is missing."""
        self.live.append(content)

    def _drop_begins(self, task: str, snapshot: str, *, again: bool) -> None:
        facts = self.snapshots[snapshot]
        if not again:
            facts["before_drop"] = facts["state"]
        for other, old in self.tasks.items():
            superseded = old["kind"] == "snapshot_drop" and old["snapshot"] == snapshot and old["state"] == "failed"
            if superseded and other != task:
                old["state"] = "cancelled"
        facts["state"] = "dropping"

    def end(self, task: str, answer: Facts, snapshot: Facts | None, content: Manifest | None) -> None:
        """Ends a task that is final according to the API's `answer`. `content` is that of the tree that it created."""
        facts = self.tasks[task]
        self.open.remove(task)
        facts["state"] = answer["state"]
        match facts["kind"], answer["state"]:
            case "workspace_init", state:
                self._init_ended(state, content)
            case "snapshot_create", state:
                self._create_ended(facts, state, content)
            case "current_set", "succeeded":
                self._current_set(facts, noop=answer["noop"])
            case "current_set", "failed":
                self._maybe_lost(facts["snapshot"], answer["error"], snapshot)
            case "snapshot_drop", state:
                self._drop_ended(facts, state, answer, snapshot)
            case _:
                assert facts["kind"] == "current_set"
                assert answer["state"] == "cancelled"

    def _init_ended(self, state: str, content: Manifest | None) -> None:
        disabled = self.facts["state"] == "disabled"
        if state == "succeeded":
            self.facts.update({"state": "disabled" if disabled else "active", "epoch": 1})
            assert content is not None
            assert content.keys() == {"."}, "a new live tree is empty"
            self._new_live(content)
        elif not disabled:
            self.facts["state"] = "init_failed"

    def _create_ended(self, facts: Facts, state: str, content: Manifest | None) -> None:
        snapshot = self.snapshots[facts["snapshot"]]
        if state != "succeeded":
            snapshot["state"] = "failed"
            return
        snapshot.update({"state": "ready", "content": content})
        since = facts["since"] if facts["made"] == self.made else 0
        wrong = [difference(wanted, content) for wanted in self.live[since:] if wanted is not None]
        assert "" in wrong, f"the snapshot has a content that the live tree never had: {wrong}"

    def _current_set(self, facts: Facts, *, noop: bool) -> None:
        snapshot = facts["snapshot"]
        if noop:
            assert not facts["reset"]
            assert self.facts["current"] == snapshot, "a no-op for a snapshot that was not current"
            return
        assert facts["reset"] or self.facts["current"] != snapshot, "not a no-op, although it was current"
        self.facts.update({"current": snapshot, "epoch": self.facts["epoch"] + 1})
        self._new_live(self.snapshots[snapshot]["content"])

    def _drop_ended(self, facts: Facts, state: str, answer: Facts, found: Facts | None) -> None:
        snapshot = self.snapshots[facts["snapshot"]]
        match state:
            case "succeeded":
                snapshot["state"] = "dropped"
            case "failed":
                snapshot["state"] = "drop_failed"
            case _:
                assert found is not None
                untouched = answer["started_at"] is None and snapshot["before_drop"] == "ready"
                touchable = ("ready", "drop_failed") if snapshot["before_drop"] == "ready" else ("drop_failed",)
                assert found["state"] in (("ready",) if untouched else touchable), found
                snapshot["state"] = found["state"]

    def _maybe_lost(self, snapshot: str, error: Facts, found: Facts | None) -> None:
        if error["code"] == "TREE_MISSING" and found is not None and found["state"] == "lost":
            self.snapshots[snapshot]["state"] = "lost"

    def _new_live(self, content: Manifest | None) -> None:
        self.live = [content]
        self.made += 1

    def _inactive(self) -> tuple[int, str] | None:
        if self.facts["state"] == "active":
            return None
        return 409, "WORKSPACE_DISABLED" if self.facts["state"] == "disabled" else "WORKSPACE_NOT_ACTIVE"

    def _dropped(self, snapshot: str) -> tuple[int, str] | None:
        return (409, "SNAPSHOT_DROPPED") if self.snapshots[snapshot]["state"] == "dropped" else None
