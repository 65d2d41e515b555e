"""What a person sees while a task is waited for: a bar on a terminal, a line per change elsewhere; all on stderr."""

from typing import TYPE_CHECKING, Protocol

from wvs.cli.wvsctl.api.documents import ProgressDocument, TaskDocument
from wvs.cli.wvsctl.output.screen import Screen
from wvs.cli.wvsctl.output.views import progress_in_words

if TYPE_CHECKING:
    from rich.progress import Progress


class Watcher(Protocol):
    """Gets the task each time it was looked at."""

    def show(self, task: TaskDocument) -> None: ...

    def note(self, message: str) -> None:
        """A message that must not break the drawing."""
        ...

    def close(self) -> None: ...


def watcher_for(screen: Screen) -> Watcher:
    """A bar if stderr is a terminal, lines otherwise."""
    return Bar(screen) if screen.err_is_terminal else Lines(screen)


class Lines:
    """One line per change of state, attempt or phase: what a log should keep."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown = ""

    def show(self, task: TaskDocument) -> None:
        line = f"{task.kind} {task.id}: {_stage(task)}"
        if line != self._shown:
            self._shown = line
            self._screen.say(line)

    def note(self, message: str) -> None:
        self._screen.say(message)

    def close(self) -> None:
        pass


class Bar:
    """One line that is redrawn, with the share of bytes (or files) done where the total is known."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._progress: Progress | None = None

    def show(self, task: TaskDocument) -> None:
        progress = self._progress or self._drawing()
        done, total = _share(task.progress)
        words = progress_in_words(task.progress) if task.progress and task.state == "running" else _stage(task)
        progress.update(progress.task_ids[0], description=f"{task.kind}: {words}", completed=done, total=total)
        progress.start()
        progress.refresh()

    def note(self, message: str) -> None:
        if self._progress is None:
            self._screen.say(message)
        else:
            self._progress.console.print(message, markup=False, highlight=False)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _drawing(self) -> "Progress":
        from rich.console import Console  # noqa: PLC0415  # only a task that takes its time is worth the import
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


def _stage(task: TaskDocument) -> str:
    attempt = f", attempt {task.attempt} of {task.max_attempts}" if task.attempt > 1 else ""
    match task:
        case TaskDocument(state="running", progress=ProgressDocument(phase=str(phase))):
            return f"running{attempt}: {phase}"
        case TaskDocument(state="queued", error=error) if error is not None:
            return f"waits for its next attempt: {error.detail} [{error.code}]"
        case _:
            return task.state + attempt


def _share(progress: ProgressDocument | None) -> tuple[float, float | None]:
    match progress:
        case ProgressDocument(bytes_done=int(done), bytes_total=int(total)) if total:
            return done, total
        case ProgressDocument(files_done=int(done), files_total=int(total)) if total:
            return done, total
        case _:
            return 0, None
