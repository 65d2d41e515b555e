"""Waiting, with a clock that only moves when it is asked to."""

from collections.abc import Callable

import msgspec
import pytest
from tests.unit.wvsctl.scripted_server import Reply, ScriptedServer, problem, reply

from wvs.cli.wvsctl.actions.waiting import Clock, Waiter
from wvs.cli.wvsctl.api.client import Client
from wvs.cli.wvsctl.api.documents import TaskDocument
from wvs.cli.wvsctl.api.failures import Interrupted, Refusal, Unreachable, WaitTimedOut
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


def shown(state: str, **fields: object) -> bytes:
    return reply(200, task(state, **fields), Content_Type="application/json")


QUEUED = msgspec.json.decode(task("queued"), type=TaskDocument)


class Watching:
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
    """A waiter whose clock gains `answer_s` per look at it and sleeps without sleeping."""

    def __init__(self, url: str, *, timeout_s: float | None = None, answer_s: float = 0.0) -> None:
        self.seconds = 0.0
        self.answer_s = answer_s
        self.watcher = Watching()
        client = Client(Transport(url), actor=None, say=self.watcher.note)
        clock = Clock(now=self._now, sleep=self._sleep)
        self.waiter = Waiter(client, self.watcher, timeout_s=timeout_s, step_s=10, clock=clock)

    def _now(self) -> float:
        self.seconds += self.answer_s
        return self.seconds

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds


def test_it_ends_with_the_final_task_as_the_api_sent_it(scripted: Start) -> None:
    server = scripted(shown("running"), shown("succeeded"))
    waiting = Waiting(server.url)
    waited = waiting.waiter.wait(QUEUED)
    assert (waited.task.state, waited.raw) == ("succeeded", task("succeeded"))
    assert waiting.watcher.states == ["queued", "running"]
    assert waiting.watcher.closed
    assert [request.headers["Prefer"] for request in server.received] == ["wait=10", "wait=10"]


def test_an_api_that_does_not_hold_its_answer_is_not_hammered(scripted: Start) -> None:
    waiting = Waiting(scripted(*[shown("running")] * 4, shown("failed")).url)
    waiting.waiter.wait(QUEUED)
    assert waiting.seconds == pytest.approx(4 * 0.25)


def test_a_timeout_bounds_the_wait_and_what_the_api_is_asked_for(scripted: Start) -> None:
    server = scripted(*[shown("running")] * 40)
    waiting = Waiting(server.url, timeout_s=3.0, answer_s=0.1)
    with pytest.raises(WaitTimedOut, match="still running after 3 s"):
        waiting.waiter.wait(QUEUED)
    assert waiting.seconds < 4
    asked = [request.headers.get("Prefer") for request in server.received]
    assert asked[0] == "wait=3"
    assert None in asked


def test_an_api_that_restarts_is_waited_for_and_that_is_told_once(scripted: Start) -> None:
    gone: list[Reply] = [None, None, problem(503, "UNAVAILABLE"), problem(503, "UNAVAILABLE")]
    waiting = Waiting(scripted(*gone, shown("succeeded")).url)
    assert waiting.waiter.wait(QUEUED).task.state == "succeeded"
    assert len(waiting.watcher.notes) == 1
    assert "the task goes on" in waiting.watcher.notes[0]


def test_an_api_that_stays_away_ends_the_wait(refused_url: str) -> None:
    waiting = Waiting(refused_url)
    with pytest.raises(Unreachable):
        waiting.waiter.wait(QUEUED)
    assert 60 < waiting.seconds < 65


def test_a_timeout_also_ends_the_wait_for_an_api_that_is_away(refused_url: str) -> None:
    with pytest.raises(WaitTimedOut):
        Waiting(refused_url, timeout_s=5).waiter.wait(QUEUED)


def test_a_refusal_is_not_waited_out(scripted: Start) -> None:
    waiting = Waiting(scripted(problem(404, "TASK_NOT_FOUND")).url)
    with pytest.raises(Refusal):
        waiting.waiter.wait(QUEUED)
    assert waiting.watcher.closed


def test_a_task_that_nobody_takes_is_remarked_on_once(scripted: Start) -> None:
    waiting = Waiting(scripted(*[shown("queued")] * 60, shown("succeeded")).url)
    waiting.waiter.wait(QUEUED)
    assert waiting.watcher.notes == ["still queued after 10 s: is an executor running? (wvs up, wvs executor)"]


def test_a_task_that_waits_for_its_next_attempt_is_no_sign_of_a_missing_executor(scripted: Start) -> None:
    error = {"code": "CLONE_FAILED", "detail": "x"}
    waiting = Waiting(scripted(*[shown("queued", error=error)] * 60, shown("succeeded")).url)
    waiting.waiter.wait(msgspec.json.decode(task("queued", error=error), type=TaskDocument))
    assert not waiting.watcher.notes


def test_ctrl_c_names_the_task_that_goes_on(scripted: Start) -> None:
    waiting = Waiting(scripted(shown("running")).url)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    waiting.waiter._clock = Clock(now=waiting._now, sleep=interrupt)
    with pytest.raises(Interrupted) as failure:
        waiting.waiter.wait(QUEUED)
    assert failure.value.exit == 130
    assert any("wvsctl task get task_1" in line for line in failure.value.help)
