"""The commands of the three decision tables, addressed to a situation; a name begins with the command's class."""

from collections.abc import Callable
from typing import Final

from tests.unit.domain.situations import Situation
from tests.unit.domain.story import (
    ASKED_TO_END,
    FINAL,
    HOLDER_GONE,
    NO_SOURCE,
    NOBODY,
    NOW,
    RETRYABLE,
    finish_of,
    tree_of,
)
from wvs.domain.commands import (
    CancelTask,
    Command,
    CreateSnapshot,
    CreateWorkspace,
    DisableWorkspace,
    DropSnapshot,
    EvictSession,
    FailAttempt,
    HandBack,
    ReportFound,
    ReportLost,
    RetryInit,
    RetryTask,
    SetCurrent,
    StartTask,
)
from wvs.domain.states import TaskKind
from wvs.domain.values import TaskError

Order = Callable[[Situation], Command]


def _held_fence(situation: Situation) -> int:
    workspace = situation.story.workspace_or_none
    return 0 if workspace is None else workspace.fence


def _start(situation: Situation, ahead: int) -> Command:
    fence = _held_fence(situation) + ahead
    return StartTask(situation.task, fence, "executor-2", tree_of(situation.task, fence), NOW, HOLDER_GONE)


def _fail(error: TaskError, *, touched: bool = True, behind: int = 0) -> Order:
    return lambda s: FailAttempt(s.task, _held_fence(s) - behind, error, NOW, jitter=0.0, touched=touched)


def _finish(kind: TaskKind, behind: int = 0) -> Order:
    return lambda s: finish_of(kind, s.task, _held_fence(s) - behind)


def _set_if(situation: Situation, epochs: set[int]) -> Command:
    return SetCurrent(situation.snapshot, situation.story.new_id(), if_epochs=frozenset(epochs))


ALL: Final[dict[str, Order]] = {
    "CreateWorkspace": lambda s: CreateWorkspace("agent-7", {}, s.story.new_id()),
    "RetryInit": lambda s: RetryInit(s.story.new_id()),
    "DisableWorkspace": lambda _: DisableWorkspace("done"),
    "EvictSession": lambda _: EvictSession(NOBODY, "hung"),
    "CreateSnapshot": lambda s: CreateSnapshot(s.story.new_id(), s.story.new_id(), None, {}),
    "SetCurrent": lambda s: SetCurrent(s.snapshot, s.story.new_id()),
    "SetCurrent, reset": lambda s: SetCurrent(s.snapshot, s.story.new_id(), reset=True),
    "SetCurrent, path replaced": lambda s: SetCurrent(s.snapshot, s.story.new_id(), path_replaced_by="a directory"),
    "SetCurrent, If-Match holds": lambda s: _set_if(s, {s.story.workspace.epoch}),
    "SetCurrent, If-Match stale": lambda s: _set_if(s, {s.story.workspace.epoch - 1}),
    "DropSnapshot": lambda s: DropSnapshot(s.snapshot, s.story.new_id()),
    "ReportLost": lambda s: ReportLost(s.snapshot, "ENOENT"),
    "ReportFound": lambda s: ReportFound(s.snapshot, "it is there again"),
    "RetryTask": lambda s: RetryTask(s.task),
    "CancelTask": lambda s: CancelTask(s.task),
    "StartTask": lambda s: _start(s, ahead=1),
    "StartTask, stale fence": lambda s: _start(s, ahead=0),
    "FinishInit": _finish(TaskKind.WORKSPACE_INIT),
    "FinishInit, stale fence": _finish(TaskKind.WORKSPACE_INIT, behind=1),
    "FinishSnapshot": _finish(TaskKind.SNAPSHOT_CREATE),
    "FinishSnapshot, stale fence": _finish(TaskKind.SNAPSHOT_CREATE, behind=1),
    "FinishSetCurrent": _finish(TaskKind.CURRENT_SET),
    "FinishSetCurrent, stale fence": _finish(TaskKind.CURRENT_SET, behind=1),
    "FinishDrop": _finish(TaskKind.SNAPSHOT_DROP),
    "FinishDrop, stale fence": _finish(TaskKind.SNAPSHOT_DROP, behind=1),
    "FailAttempt, retryable": _fail(RETRYABLE),
    "FailAttempt, retryable, untouched": _fail(RETRYABLE, touched=False),
    "FailAttempt, final": _fail(FINAL),
    "FailAttempt, cancelled": _fail(ASKED_TO_END),
    "FailAttempt, cancelled, untouched": _fail(ASKED_TO_END, touched=False),
    "FailAttempt, no source": _fail(NO_SOURCE),
    "FailAttempt, stale fence": _fail(RETRYABLE, behind=1),
    "HandBack": lambda s: HandBack(s.task, _held_fence(s), NOW),
    "HandBack, untouched": lambda s: HandBack(s.task, _held_fence(s), NOW, touched=False),
    "HandBack, stale fence": lambda s: HandBack(s.task, _held_fence(s) - 1, NOW),
}


def _named(*classes: str) -> dict[str, Order]:
    return {name: order for name, order in ALL.items() if name.split(",")[0] in classes}


def _plain() -> dict[str, Order]:
    """One order of each class: its result in a workspace's state does not depend on the variant."""
    return {name: order for name, order in ALL.items() if "," not in name or name == "FailAttempt, final"}


WORKSPACE: Final = _plain()
SNAPSHOT: Final = _named("SetCurrent", "DropSnapshot", "ReportLost", "ReportFound")
TASK: Final = _named(
    "RetryTask",
    "CancelTask",
    "StartTask",
    "FinishInit",
    "FinishSnapshot",
    "FinishSetCurrent",
    "FinishDrop",
    "FailAttempt",
    "HandBack",
)
