"""One example: a few workspaces with their models, and the code that all steps share."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.property.platform.client import Answer, Request
from tests.property.platform.harness import WAIT_S, Harness
from tests.property.platform.log_audit import Look
from tests.property.platform.manifests import difference, manifest_of
from tests.property.platform.past_audit import PastAudit
from tests.property.platform.workspace_model import WorkspaceModel
from wvs.domain.ids import SNAPSHOT, WORKSPACE, format_id, parse_id

DROPPABLE = ("ready", "failed", "lost", "drop_failed")


class Story:
    """One example of the state machine."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.models: list[WorkspaceModel] = []
        self.answered: list[tuple[WorkspaceModel | None, Request, Answer]] = []
        """Requests that the API accepted, with the answers."""
        self.damaged: set[str] = set()
        """Snapshots whose directory the test has removed."""
        self.blocked: dict[str, Path] = {}
        """Directories with which the test blocks a drop, by snapshot."""
        self.disturbed_at = 0.0
        """When the last fault was injected; a task accepted before it may end in any way."""
        self.pasts = PastAudit(harness.volume)
        self._trail = harness.directory / "trail"

    def create_workspace(self) -> WorkspaceModel:
        request = Request("POST", "/v1/workspaces", {"name": f"w-{uuid4().hex}"})
        answer = self.harness.client.send(request)
        assert answer.status == 202, answer
        model = WorkspaceModel(answer.body["workspace"]["id"])
        self.models.append(model)
        self.accept(model, answer.body["task"]["id"], "workspace_init", None)
        self._remember(model, request, answer)
        return model

    def ask(self, model: WorkspaceModel, request: Request, wanted: tuple[int, str | None]) -> Answer:
        """Sends a request. If no task is open, the answer must be exactly the one that the model gives."""
        calm = not model.open
        answer = self.harness.client.send(request)
        given = answer.status, answer.code
        self.note(f"{request.method} {request.path} {request.body or ''} -> {given}")
        if calm:
            assert given == wanted, (request, given, answer.body, wanted)
        else:
            assert answer.status in (200, 202, 409, 412), (request, answer)
        if answer.status < 300:
            self._remember(model, request, answer)
        return answer

    def _remember(self, model: WorkspaceModel, request: Request, answer: Answer) -> None:
        assert not answer.replayed or answer.status < 300
        self.answered.append((model, request, answer))

    def snapshot_of(self, model: WorkspaceModel, pick: int, wanted: str) -> str | None:
        """A snapshot of the workspace; in three of four cases a `ready` one, or one that is `free` to be dropped."""
        every = list(model.snapshots)
        fit = {
            "ready": [s for s in every if model.snapshots[s]["state"] == "ready"],
            "free": [s for s in every if model.snapshots[s]["state"] in DROPPABLE and not model.blockers(s)],
        }[wanted]
        ids = fit if fit and pick % 4 else every
        return ids[-1 - pick // 4 % len(ids)] if ids else None

    def note(self, what: str) -> None:
        """Appends a line to the trail, which a person reads to find out why a run failed."""
        with self._trail.open("a") as trail:
            trail.write(f"{datetime.now(UTC).time()} {what}\n")

    def disturb(self) -> None:
        self.disturbed_at = time.monotonic()

    def accept(self, model: WorkspaceModel, task: str, kind: str, snapshot: str | None, *, reset: bool = False) -> None:
        """Adds an accepted task to the model, and notes whether it cannot succeed. None: that is not known."""
        alone = not model.open
        model.accept(task, kind, snapshot, reset=reset)
        impossible = {
            "workspace_init": False,
            "snapshot_create": model.live[-1] is None,
            "current_set": snapshot in self.damaged,
            "snapshot_drop": snapshot in self.blocked,
        }[kind]
        calm = self.harness.calm()
        model.tasks[task].update(
            accepted_at=time.monotonic() if calm else 0.0, impossible=impossible if alone else None, asked_to_end=False
        )

    def settle(self, model: WorkspaceModel) -> None:
        """Waits until every accepted task is final, passes their ends to the model, and compares the results."""
        deadline = time.monotonic() + WAIT_S
        ends = {task: self._final(task, deadline) for task in model.open}
        snapshots = {s["id"]: s for s in self.snapshots(model)}
        look = self.look(model)
        for task, end in ends.items():
            facts = model.tasks[task]
            expected = facts.get("accepted_at", 0.0) > self.disturbed_at
            name = facts["snapshot"]
            self.note(f"{task} {facts['kind']} ended {end['state']} {(end['error'] or {}).get('code', '')}")
            model.end(task, end, snapshots.get(name), self._content(model, look, task))
            if expected:
                self._undisturbed(facts, end)
        self._compare(model, snapshots, look)

    def _final(self, task: str, deadline: float) -> dict[str, Any]:
        while True:
            self.harness.tend()
            answer = self.harness.client.read(f"/v1/tasks/{task}", wait_s=2)
            if answer["state"] in ("succeeded", "failed", "cancelled") and not self._link_pending(answer):
                return answer
            assert time.monotonic() < deadline, f"{task} is not final after {WAIT_S:g} s: {answer}"

    def _link_pending(self, answer: dict[str, Any]) -> bool:
        return self.look_at(answer["workspace_id"]).lane["link_pending"] is not None

    def _undisturbed(self, facts: dict[str, Any], end: dict[str, Any]) -> None:
        """Without a fault, a task fails only if it cannot succeed."""
        if end["state"] == "cancelled":
            assert facts["asked_to_end"], (facts, end)
        elif facts["impossible"] is not None:
            assert (end["state"] == "failed") == facts["impossible"], (facts, end)

    def _content(self, model: WorkspaceModel, look: Look, task: str) -> dict[str, tuple[object, ...]] | None:
        facts = model.tasks[task]
        if facts["kind"] == "workspace_init":
            live = look.workspace.live_tree
            return None if live is None else manifest_of(self.harness.disk.tree(look.workspace.id, live))
        if facts["kind"] != "snapshot_create":
            return None
        return self.harness.disk.recorded.get(parse_id(SNAPSHOT, facts["snapshot"]))

    def _compare(self, model: WorkspaceModel, snapshots: dict[str, Any], look: Look) -> None:
        shown = self.harness.client.read(f"/v1/workspaces/{model.id}")
        facts = {"state": shown["state"], "current": shown["current_snapshot_id"], "epoch": shown["epoch"]}
        assert facts == model.facts, (facts, model.facts)
        for snapshot, known in model.snapshots.items():
            found = snapshots[snapshot]["state"]
            if snapshot in self.damaged and known["state"] == "ready" and found == "lost":
                known["state"] = "lost"
            assert found == known["state"], (snapshot, found, known["state"])
        live = look.workspace.live_tree
        assert self.harness.disk.live_tree(look.workspace.id) == live, "the path does not show what Postgres says"
        if live is not None:
            wrong = difference(model.live[-1], manifest_of(self.harness.disk.tree(look.workspace.id, live)))
            assert not wrong, f"the live tree is not what it was: {wrong}"

    def snapshots(self, model: WorkspaceModel) -> list[Any]:
        return self.harness.client.items(f"/v1/workspaces/{model.id}/snapshots?include_deleted=true&limit=1000")

    def look(self, model: WorkspaceModel) -> Look:
        return self.look_at(model.id)

    def look_at(self, typed_id: str) -> Look:
        """One look at log and disk, with every invariant that holds at any moment."""
        workspace_id = parse_id(WORKSPACE, typed_id)
        linked = self.harness.disk.live_tree(workspace_id)
        look = self.harness.log.look(workspace_id)
        self.pasts.note(look)
        states = {row["name"]: row["state"] for row in look.rows["trees"]}
        # The link was read first, so that it is no newer than the log.
        assert linked is None or states[linked] in ("live", "retired"), f"the path shows a tree {states[linked]}"
        self.harness.disk.check_snapshots(workspace_id, look)
        return look

    def check(self) -> None:
        """Checks every workspace: the invariants that hold at any moment, and that no acknowledged task is missing."""
        for model in self.models:
            look = self.look(model)
            shown = {row["id"] for row in look.rows["tasks"]}
            lost = [t for t in model.tasks if str(parse_id("task", t)) not in shown]
            assert not lost, f"acknowledged tasks are not in the log: {lost}"
            if look.workspace.running is None and not look.workspace.queued and look.lane["link_pending"] is None:
                self._check_link(look)
        for model, request, _ in self.answered:
            if model is not None:
                effects = self.harness.log.effects(parse_id(WORKSPACE, model.id), request.key)
                assert effects <= 1, f"{effects} effects of one key: {request}"
        self.harness.disk.check_clones()

    def _check_link(self, look: Look) -> None:
        """An executor that was stopped may move the link back to its own tree. It then asks again and repairs it."""
        deadline = time.monotonic() + WAIT_S
        while self.harness.disk.live_tree(look.workspace.id) != look.workspace.live_tree:
            assert time.monotonic() < deadline, f"the link of {format_id(WORKSPACE, look.workspace.id)} is wrong"
            time.sleep(0.05)

    def check_swept(self, model: WorkspaceModel) -> None:
        """After a sweep every directory has an owner. The check waits for an executor that is still removing some."""
        deadline = time.monotonic() + WAIT_S
        while strays := self.harness.disk.check_owners(parse_id(WORKSPACE, model.id), self.look(model)):
            assert time.monotonic() < deadline, f"nobody owns {strays}"
            self.harness.sweep()
