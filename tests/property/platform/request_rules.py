"""Rules for client requests: every operation of the API, and every way to repeat a request."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.property.platform.client import Request
from tests.property.platform.manifests import manifest_of
from tests.property.platform.scribbling import OPERATIONS, scribble
from tests.property.platform.story_machine import MOST_WORKSPACES, StoryMachine, flags, picks, seldom
from wvs.domain.ids import WORKSPACE, parse_id

conditions = st.sampled_from(["none", "none", "right", "wrong"])
edits_of_a_tree = st.lists(st.tuples(st.sampled_from(OPERATIONS), picks, st.binary(max_size=64)), max_size=4)


class RequestRules(StoryMachine):
    """The requests."""

    @rule()
    def create_workspace(self) -> None:
        if len(self.story.models) < MOST_WORKSPACES:
            self.story.create_workspace()

    @rule(at=picks, edits=edits_of_a_tree)
    def write(self, at: int, edits: list[tuple[str, int, bytes]]) -> None:
        model = self.model(at)
        if any(model.tasks[t]["kind"] in ("workspace_init", "current_set") for t in model.open):
            self.story.settle(model)
        live = self.harness.disk.directory(parse_id(WORKSPACE, model.id)) / "current"
        for operation, pick, content in edits if model.live[-1] is not None else ():
            scribble(live, self.harness.directory, operation, pick, content)
            model.wrote(manifest_of(live.resolve()))

    @rule(at=picks, patient=flags)
    def snapshot(self, at: int, patient: bool) -> None:
        model = self.model(at, patient=patient)
        self.created(model, self.ask_for_snapshot(model))

    @rule(at=picks, pick=picks, reset=flags, condition=conditions, patient=flags)
    def set_current(self, at: int, pick: int, reset: bool, condition: str, patient: bool) -> None:
        model = self.model(at, patient=patient)
        if (snapshot := self.story.snapshot_of(model, pick, "ready")) is None:
            return
        epoch = model.facts["epoch"] + (condition == "wrong")
        request = Request(
            "PUT",
            f"/v1/workspaces/{model.id}/current",
            {"snapshot_id": snapshot, "reset": reset},
            if_match=None if condition == "none" else f'"{epoch}"',
        )
        epochs = None if condition == "none" else {epoch}
        answer = self.story.ask(model, request, model.answer_to_set(snapshot, reset=reset, epochs=epochs))
        if answer.status == 200:
            model.accept_skipped(answer.body["task"]["id"], snapshot)
        elif answer.status == 202:
            self.story.accept(model, answer.body["task"]["id"], "current_set", snapshot, reset=reset)

    @rule(at=picks, pick=picks, patient=flags)
    def drop(self, at: int, pick: int, patient: bool) -> None:
        model = self.model(at, patient=patient)
        if (snapshot := self.story.snapshot_of(model, pick, "free")) is None:
            return
        if any(model.tasks[t]["snapshot"] == snapshot for t in model.open):
            self.story.settle(model)
        if model.facts["state"] == "disabled" and snapshot in self.story.damaged:
            return  # a sweep may mark it lost at any moment, and only then it can be dropped
        calm = not model.open
        request = Request("DELETE", f"/v1/workspaces/{model.id}/snapshots/{snapshot}")
        answer = self.story.ask(model, request, model.answer_to_drop(snapshot))
        if answer.status == 202:
            self.story.accept(model, answer.body["task"]["id"], "snapshot_drop", snapshot)
        elif answer.code == "SNAPSHOT_IN_USE" and calm:
            assert sorted(map(str, answer.body["blockers"])) == sorted(map(str, model.blockers(snapshot)))

    @rule(at=picks, pick=picks)
    def retry(self, at: int, pick: int) -> None:
        model = self.model(at, patient=True)
        failed = [t for t, facts in model.tasks.items() if facts["state"] == "failed"] or list(model.tasks)
        task = failed[pick % len(failed)]
        kind, snapshot = model.tasks[task]["kind"], model.tasks[task]["snapshot"]
        if pick % 2 and snapshot in self.story.blocked:
            self.unblock(snapshot)
        answer = self.story.ask(model, Request("POST", f"/v1/tasks/{task}/retry"), model.answer_to_retry(task))
        if answer.status == 202:
            self.story.accept(model, task, kind, snapshot)

    @rule(at=picks)
    def retry_init(self, at: int) -> None:
        model = self.model(at, patient=True)
        request = Request("POST", f"/v1/workspaces/{model.id}/retry-init")
        answer = self.story.ask(model, request, model.answer_to_retry_init())
        if answer.status == 202:
            self.story.accept(model, answer.body["task"]["id"], "workspace_init", None)

    @rule(at=picks, pick=picks, patient=seldom)
    def cancel(self, at: int, pick: int, patient: bool) -> None:
        model = self.model(at, patient=patient)
        tasks = model.open or [t for t, f in model.tasks.items() if f["state"] == "failed"] or list(model.tasks)
        task = tasks[pick % len(tasks)]
        answer = self.story.ask(model, Request("POST", f"/v1/tasks/{task}/cancel"), model.answer_to_cancel(task))
        if answer.status == 202 and task in model.open:
            model.tasks[task]["asked_to_end"] = True
        elif answer.status == 202:
            model.abandon(task)

    @rule(at=picks, really=seldom, patient=flags)
    def disable(self, at: int, really: bool, patient: bool) -> None:
        model = self.model(at, patient=patient)
        if really and len(self.story.models) > 1:
            answer = self.story.ask(model, Request("POST", f"/v1/workspaces/{model.id}/disable", {}), (200, None))
            assert answer.body["state"] == "disabled"
            model.disable()
            for task in model.open:
                model.tasks[task]["asked_to_end"] = True

    @rule(pick=picks)
    def repeat_a_request(self, pick: int) -> None:
        _, request, first = self.story.answered[-1 - pick % len(self.story.answered)]
        again = self.harness.client.send(request)
        assert again.replayed, (request, again)
        assert (again.status, _stored(again.body)) == (first.status, _stored(first.body)), request

    @rule(pick=picks)
    def use_a_key_for_another_request(self, pick: int) -> None:
        _, request, _ = self.story.answered[-1 - pick % len(self.story.answered)]
        if (other := _other_than(request)) is None:
            return
        answer = self.harness.client.send(other)
        assert (answer.status, answer.code) == (422, "IDEMPOTENCY_KEY_REUSED"), answer

    @rule(at=picks, senders=st.integers(2, 4))
    def send_one_request_from_many(self, at: int, senders: int) -> None:
        model = self.model(at, patient=True)
        request = Request("POST", f"/v1/workspaces/{model.id}/snapshots", {"message": "who is first"})
        with ThreadPoolExecutor(senders) as threads:
            answers = list(threads.map(self.harness.client.send, [request] * senders))
        assert {(a.status, a.code) for a in answers} == {model.answer_to_create()}, answers
        if answers[0].status == 202:
            assert len({a.body["task"]["id"] for a in answers}) == 1
            assert sum(not a.replayed for a in answers) == 1
            self.story.answered.append((model, request, answers[0]))
            self.created(model, answers[0])


def _stored(body: Any) -> Any:
    """An answer without what it says of now: the only part that a repetition may change."""
    if not isinstance(body, dict) or not isinstance(body.get("task"), dict):
        return body
    return {**body, "task": {**body["task"], "waiting_for": None}}


def _other_than(request: Request) -> Request | None:
    """Another request of the same operation; None for a drop, whose request has no body."""
    match request.method, request.path.rsplit("/", 1)[-1]:
        case "PUT", _:
            return replace(request, body={**request.body, "reset": not request.body["reset"]})
        case "POST", "workspaces":
            return replace(request, body={"name": "another"})
        case "POST", "snapshots":
            return replace(request, body={"message": "another"})
        case "POST", "disable":
            return replace(request, body={"reason": "another"})
        case "POST", _:
            return replace(request, body={})  # an empty object differs from an absent body
        case _:
            return None
