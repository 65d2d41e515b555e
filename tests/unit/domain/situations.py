"""Every situation of the three decision tables, reached by commands. Its name begins with the state in question."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from msgspec import Struct

from tests.unit.domain.story import ASKED_TO_END, NO_SOURCE, NOBODY, RETRYABLE, Story
from wvs.domain.commands import CancelTask, DisableWorkspace, ReportLost
from wvs.domain.policy import RETRY
from wvs.domain.states import TaskKind


class Situation(Struct, frozen=True):
    """A story so far, and the snapshot and the task for the next command."""

    story: Story
    snapshot: UUID = NOBODY
    task: UUID = NOBODY


Build = Callable[[], Situation]


def active() -> Situation:
    story = Story()
    return Situation(story, task=story.activate())


def _absent() -> Situation:
    return Situation(Story())


def _init_queued() -> Situation:
    story = Story()
    return Situation(story, task=story.create())


def _init_running() -> Situation:
    situation = _init_queued()
    situation.story.start(situation.task)
    return situation


def _init_failed() -> Situation:
    situation = _init_running()
    situation.story.fail(situation.task)
    return situation


def _init_abandoned() -> Situation:
    situation = _init_failed()
    situation.story.cancel(situation.task)
    return situation


def ready() -> Situation:
    story = active().story
    return Situation(story, story.ready())


def current() -> Situation:
    story = active().story
    return Situation(story, story.current())


def create_queued() -> Situation:
    story = active().story
    return Situation(story, *story.request_snapshot())


def create_running() -> Situation:
    return running(create_queued())


def set_queued() -> Situation:
    situation = ready()
    return Situation(situation.story, situation.snapshot, situation.story.request_current(situation.snapshot))


def drop_queued() -> Situation:
    situation = ready()
    return Situation(situation.story, situation.snapshot, situation.story.request_drop(situation.snapshot))


def running(situation: Situation) -> Situation:
    situation.story.start(situation.task)
    return situation


def failed(situation: Situation) -> Situation:
    situation.story.run_to_failure(situation.task)
    return situation


def succeeded(situation: Situation) -> Situation:
    running(situation).story.finish(situation.task)
    return situation


def cancelled(situation: Situation) -> Situation:
    situation.story.cancel(situation.task)
    return situation


def cancelling(situation: Situation) -> Situation:
    running(situation).story.do(CancelTask(situation.task))
    return situation


def cancelled_while_running(situation: Situation) -> Situation:
    cancelling(situation).story.fail(situation.task, ASKED_TO_END)
    return situation


def waiting(situation: Situation) -> Situation:
    running(situation).story.fail(situation.task, RETRYABLE)
    return situation


def on_last_attempt(situation: Situation) -> Situation:
    running(situation)
    for _ in range(RETRY[situation.story.task(situation.task).kind].max_attempts - 1):
        situation.story.fail(situation.task, RETRYABLE)
        situation.story.start(situation.task)
    return situation


def disabled(situation: Situation) -> Situation:
    situation.story.do(DisableWorkspace())
    return situation


def lost(situation: Situation) -> Situation:
    situation.story.do(ReportLost(situation.snapshot, "ENOENT"))
    return situation


def behind(kind: TaskKind) -> Situation:
    """Queued while a `snapshot_create` accepted earlier runs."""
    story = active().story
    snapshot_id = story.ready()
    _, earlier = story.request_snapshot()
    story.start(earlier)
    match kind:
        case TaskKind.SNAPSHOT_CREATE:
            return Situation(story, *story.request_snapshot())
        case TaskKind.CURRENT_SET:
            return Situation(story, snapshot_id, story.request_current(snapshot_id))
        case TaskKind.SNAPSHOT_DROP:
            return Situation(story, snapshot_id, story.request_drop(snapshot_id))
        case TaskKind.WORKSPACE_INIT:
            raise AssertionError("Nothing is accepted before the init task.")


def _lost_by_set() -> Situation:
    situation = running(set_queued())
    situation.story.fail(situation.task, NO_SOURCE)
    return situation


WORKSPACE: Final[dict[str, Build]] = {
    "absent": _absent,
    "initializing, init queued": _init_queued,
    "initializing, init running": _init_running,
    "init_failed, init failed": _init_failed,
    "init_failed, init abandoned": _init_abandoned,
    "active, snapshot ready": ready,
    "active, create queued": create_queued,
    "active, create running": create_running,
    "disabled, snapshot ready": lambda: disabled(ready()),
    "disabled, create running": lambda: disabled(create_running()),
}

SNAPSHOT: Final[dict[str, Build]] = {
    "unknown": active,
    "creating, create queued": create_queued,
    "creating, create running": create_running,
    "creating, create retried": lambda: waiting(create_queued()),
    "ready": ready,
    "ready, current": current,
    "ready, set queued": set_queued,
    "ready, set running": lambda: running(set_queued()),
    "ready, set failed": lambda: failed(set_queued()),
    "failed, create failed": lambda: failed(create_queued()),
    "failed, create abandoned": lambda: cancelled(failed(create_queued())),
    "dropping, drop queued": drop_queued,
    "dropping, drop running": lambda: running(drop_queued()),
    "dropping, drop retried": lambda: waiting(drop_queued()),
    "drop_failed, drop failed": lambda: failed(drop_queued()),
    "drop_failed, drop abandoned": lambda: cancelled(failed(drop_queued())),
    "drop_failed, drop cancelled": lambda: cancelled_while_running(drop_queued()),
    "dropped": lambda: succeeded(drop_queued()),
    "lost": lambda: lost(ready()),
    "lost, current": lambda: lost(current()),
    "lost, set failed": _lost_by_set,
    "ready, workspace disabled": lambda: disabled(ready()),
    "lost, workspace disabled": lambda: disabled(lost(ready())),
    "lost, current, workspace disabled": lambda: disabled(lost(current())),
    "drop_failed, workspace disabled": lambda: disabled(failed(drop_queued())),
    "dropped, workspace disabled": lambda: disabled(succeeded(drop_queued())),
}

_QUEUED: Final[dict[TaskKind, Build]] = {
    TaskKind.WORKSPACE_INIT: _init_queued,
    TaskKind.SNAPSHOT_CREATE: create_queued,
    TaskKind.CURRENT_SET: set_queued,
    TaskKind.SNAPSHOT_DROP: drop_queued,
}

_OF_A_TASK: Final[dict[str, Callable[[Situation], Situation]]] = {
    "queued": lambda situation: situation,
    "queued, waiting for its retry": waiting,
    "running": running,
    "running, asked to cancel": cancelling,
    "running, last attempt": on_last_attempt,
    "running, workspace disabled": lambda situation: disabled(running(situation)),
    "succeeded": succeeded,
    "failed": failed,
    "failed, workspace disabled": lambda situation: disabled(failed(situation)),
    "cancelled": cancelled,
}


def _of_tasks() -> dict[str, Build]:
    builds: dict[str, Build] = {"unknown": lambda: Situation(active().story)}
    for kind, queued in _QUEUED.items():
        for name, further in _OF_A_TASK.items():
            builds[f"{name} ({kind})"] = lambda queued=queued, further=further: further(queued())
        if kind is not TaskKind.WORKSPACE_INIT:
            builds[f"queued, another runs ({kind})"] = lambda kind=kind: behind(kind)
    return builds


TASK: Final = _of_tasks()
