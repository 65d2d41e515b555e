"""Shows on stderr how a task progresses: a bar on a terminal, otherwise one line per change."""

from typing import TYPE_CHECKING, Protocol

from wvs.cli.wvsctl.api.documents import ProgressDocument, TaskDocument
from wvs.cli.wvsctl.output.screen import Screen
from wvs.cli.wvsctl.output.views import progress_text

if TYPE_CHECKING:
    from rich.progress import Progress


class Watcher(Protocol):
    """Receives the task after every poll."""

    def show(self, task: TaskDocument) -> None: ...

    def note(self, message: str) -> None:
        """Prints a message without breaking the progress bar."""
        ...

    def close(self) -> None: ...


def watcher_for(screen: Screen) -> Watcher:
    """A bar if stderr is a terminal, otherwise lines."""
    return ProgressBar(screen) if screen.err_is_terminal else ProgressLines(screen)


class ProgressLines:
    """Prints one line per change of state, attempt or phase, which suits a log."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown = ""

    def show(self, task: TaskDocument) -> None:
        line = f"{task.kind} {task.id}: {_state_text(task)}"
        if line != self._shown:
            self._shown = line
            self._screen.notify(line)

    def note(self, message: str) -> None:
        self._screen.notify(message)

    def close(self) -> None:
        pass


class ProgressBar:
    """Redraws one line, with the share of bytes (or files) done if the total is known."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._progress: Progress | None = None

    def show(self, task: TaskDocument) -> None:
        progress = self._progress or self._create()
        done, total = _done_and_total(task.progress)
        text = progress_text(task.progress) if task.progress and task.state == "running" else _state_text(task)
        progress.update(progress.task_ids[0], description=f"{task.kind}: {text}", completed=done, total=total)
        progress.start()
        progress.refresh()

    def note(self, message: str) -> None:
        if self._progress is None:
            self._screen.notify(message)
        else:
            self._progress.console.print(message, markup=False, highlight=False)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _create(self) -> "Progress":
        from rich.console import Console  # noqa: PLC0415  # only a long task is worth this import
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=Console(file=self._screen.err),
            transient=True,
        )
        progress.add_task("", total=None)
        self._progress = progress
        return progress


def _state_text(task: TaskDocument) -> str:
    attempt = f", attempt {task.attempt} of {task.max_attempts}" if task.attempt > 1 else ""
    match task:
        case TaskDocument(state="running", progress=ProgressDocument(phase=str(phase))):
            return f"running{attempt}: {phase}"
        case TaskDocument(state="queued", error=error) if error is not None:
            return f"waiting for its next attempt: {error.detail} [{error.code}]"
        case _:
            return task.state + attempt


def _done_and_total(progress: ProgressDocument | None) -> tuple[float, float | None]:
    match progress:
        case ProgressDocument(bytes_done=int(done), bytes_total=int(total)) if total:
            return done, total
        case ProgressDocument(files_done=int(done), files_total=int(total)) if total:
            return done, total
        case _:
            return 0, None
