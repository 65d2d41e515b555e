"""Waiting for a task, with a fake clock."""

from collections.abc import Callable

import msgspec
import pytest
from tests.unit.wvsctl.scripted_server import Reply, ScriptedServer, problem, reply

from wvs.cli.wvsctl.actions.waiting import Clock, Waiter
from wvs.cli.wvsctl.api.client import Client
from wvs.cli.wvsctl.api.documents import TaskDocument
from wvs.cli.wvsctl.api.failures import CannotConnect, Interrupted, Refusal, WaitTimedOut
from wvs.cli.wvsctl.api.transport import Transport

Start = Callable[..., ScriptedServer]


def task(state: str, **fields: object) -> bytes:
    document = {
        "id": "task_1",
        "workspace_id": "ws_1",
        "kind": "snapshot_create",
        "state": state,
        "created_at": "2026-11-23T20:05:33Z",
        **fields,
    }
    return msgspec.json.encode(document)


def task_reply(state: str, **fields: object) -> bytes:
    return reply(200, task(state, **fields), Content_Type="application/json")


QUEUED = msgspec.json.decode(task("queued"), type=TaskDocument)


class RecordingWatcher:
    def __init__(self) -> None:
        self.states: list[str] = []
        self.notes: list[str] = []
        self.closed = False

    def show(self, task: TaskDocument) -> None:
        self.states.append(task.state)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def close(self) -> None:
        self.closed = True


class Waiting:
    """A waiter with a fake clock, which advances by `answer_s` at each reading and by the length of each sleep."""

    def __init__(self, url: str, *, timeout_s: float | None = None, answer_s: float = 0.0) -> None:
        self.seconds = 0.0
        self.answer_s = answer_s
        self.watcher = RecordingWatcher()
        client = Client(Transport(url), actor=None, notify=self.watcher.note)
        clock = Clock(now=self._now, sleep=self._sleep)
        self.waiter = Waiter(client, self.watcher, timeout_s=timeout_s, step_s=10, clock=clock)

    def _now(self) -> float:
        self.seconds += self.answer_s
        return self.seconds

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds


def test_the_wait_returns_the_final_task_as_the_api_sent_it(scripted: Start) -> None:
    server = scripted(task_reply("running"), task_reply("succeeded"))
    waiting = Waiting(server.url)
    waited = waiting.waiter.wait(QUEUED)
    assert (waited.task.state, waited.raw) == ("succeeded", task("succeeded"))
    assert waiting.watcher.states == ["queued", "running"]
    assert waiting.watcher.closed
    assert [request.headers["Prefer"] for request in server.received] == ["wait=10", "wait=10"]


def test_an_api_that_ignores_the_wait_is_not_flooded_with_requests(scripted: Start) -> None:
    waiting = Waiting(scripted(*[task_reply("running")] * 4, task_reply("failed")).url)
    waiting.waiter.wait(QUEUED)
    assert waiting.seconds == pytest.approx(4 * 0.25)


def test_a_timeout_bounds_the_wait_and_the_wait_requested_from_the_api(scripted: Start) -> None:
    server = scripted(*[task_reply("running")] * 40)
    waiting = Waiting(server.url, timeout_s=3.0, answer_s=0.1)
    with pytest.raises(WaitTimedOut, match="still running after 3 s"):
        waiting.waiter.wait(QUEUED)
    assert waiting.seconds < 4
    requested = [request.headers.get("Prefer") for request in server.received]
    assert requested[0] == "wait=3"
    assert None in requested


def test_the_wait_survives_a_restart_of_the_api_and_notes_it_once(scripted: Start) -> None:
    outage: list[Reply] = [None, None, problem(503, "UNAVAILABLE"), problem(503, "UNAVAILABLE")]
    waiting = Waiting(scripted(*outage, task_reply("succeeded")).url)
    assert waiting.waiter.wait(QUEUED).task.state == "succeeded"
    assert len(waiting.watcher.notes) == 1
    assert "the task continues" in waiting.watcher.notes[0]


def test_a_proxy_that_answers_for_the_api_does_not_end_the_wait(scripted: Start) -> None:
    pages = [reply(status, b"<h1>no</h1>", Content_Type="text/html") for status in (502, 503, 504)]
    waiting = Waiting(scripted(*pages, task_reply("succeeded")).url)
    assert waiting.waiter.wait(QUEUED).task.state == "succeeded"
    [note] = waiting.watcher.notes
    assert "answers 502: it gets no answer from the API; the task continues; retrying" in note


def test_what_a_final_task_made_is_read_across_an_outage(scripted: Start) -> None:
    waiting = Waiting(scripted(reply(502), reply(200, b"{}", Content_Type="application/json")).url)
    final = msgspec.json.decode(task("succeeded"), type=TaskDocument)
    assert waiting.waiter.read("/v1/workspaces/ws_1", final).body == b"{}"
    assert "the task has succeeded; retrying" in waiting.watcher.notes[0]


def test_a_long_outage_of_the_api_ends_the_wait(refused_url: str) -> None:
    waiting = Waiting(refused_url)
    with pytest.raises(CannotConnect):
        waiting.waiter.wait(QUEUED)
    assert 60 < waiting.seconds < 65


def test_a_timeout_ends_the_wait_during_an_outage(refused_url: str) -> None:
    with pytest.raises(WaitTimedOut):
        Waiting(refused_url, timeout_s=5).waiter.wait(QUEUED)


def test_a_refusal_ends_the_wait(scripted: Start) -> None:
    waiting = Waiting(scripted(problem(404, "TASK_NOT_FOUND")).url)
    with pytest.raises(Refusal):
        waiting.waiter.wait(QUEUED)
    assert waiting.watcher.closed


def test_what_a_task_waits_for_is_noted_once(scripted: Start) -> None:
    stuck = task_reply("queued", waiting_for={"reason": "no_executor", "detail": "no executor is running"})
    waiting = Waiting(scripted(*[stuck] * 6, task_reply("succeeded")).url)
    waiting.waiter.wait(QUEUED)
    assert waiting.watcher.notes == ["the task waits: no executor is running"]


def test_a_wait_that_times_out_says_what_the_task_waits_for(scripted: Start) -> None:
    stuck = task_reply("queued", waiting_for={"reason": "no_executor", "detail": "no executor is running"})
    with pytest.raises(WaitTimedOut, match=r"still queued after 5 s \(no executor is running"):
        Waiting(scripted(*[stuck] * 60).url, timeout_s=5).waiter.wait(QUEUED)


def test_a_task_that_waits_for_its_next_attempt_is_not_noted_as_stuck(scripted: Start) -> None:
    error = {"code": "CLONE_FAILED", "detail": "x"}
    waiting = Waiting(scripted(*[task_reply("queued", error=error)] * 60, task_reply("succeeded")).url)
    waiting.waiter.wait(msgspec.json.decode(task("queued", error=error), type=TaskDocument))
    assert not waiting.watcher.notes


def test_ctrl_c_names_the_task_that_continues(scripted: Start) -> None:
    waiting = Waiting(scripted(task_reply("running")).url)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    waiting.waiter._clock = Clock(now=waiting._now, sleep=interrupt)
    with pytest.raises(Interrupted) as failure:
        waiting.waiter.wait(QUEUED)
    assert failure.value.exit == 130
    assert any("wvsctl task get task_1" in line for line in failure.value.help)
