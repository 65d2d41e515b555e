"""The queue of one workspace as a list, changed by the steps of `react` as Postgres changes the real one."""

from collections.abc import Sequence
from uuid import UUID

from wvs.domain.commands import Command, StartTask
from wvs.domain.events import Event
from wvs.domain.react import AskToCancel, Enqueue, Relink, Remove, Reschedule, react


class Lane:
    """The waiting tasks in the order of the lane, and the running one. A claim comes before its `StartTask`."""

    def __init__(self) -> None:
        self.waiting: list[UUID] = []
        self.running: UUID | None = None
        self.link_epoch = 0

    def apply(self, command: Command, events: Sequence[Event]) -> None:
        """Claims the task if the command starts a waiting one, then applies every step in order."""
        if isinstance(command, StartTask) and command.task_id in self.waiting:
            assert self.waiting[0] == command.task_id
            assert self.running is None
            self.running = self.waiting.pop(0)
        for steps in react(events):
            for step in steps:
                self._apply(step)

    def _apply(self, step: Enqueue | Reschedule | AskToCancel | Remove | Relink) -> None:
        match step:
            case Enqueue(task_id):
                assert task_id not in self.waiting
                self.waiting.append(task_id)
            case Reschedule(task_id):
                assert self.running == task_id, "only a running task can be rescheduled"
                self.running = None
                self.waiting.insert(0, task_id)
            case AskToCancel(task_id):
                assert self.running == task_id, "only a running task can be asked to cancel"
            case Remove(task_id):
                self.running = None if self.running == task_id else self.running
                self.waiting = [waiting for waiting in self.waiting if waiting != task_id]
            case Relink(epoch):
                assert epoch == self.link_epoch + 1
                self.link_epoch = epoch
