"""`wvsctl task …`."""

from typing import Annotated

from cyclopts import App, Parameter

from wvs.cli.wvsctl.actions.arguments import Flag, Task, TaskKindChoice, TaskStateChoice
from wvs.cli.wvsctl.actions.completing import task_ids, workspace_names
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.listing import Paging, show_list
from wvs.cli.wvsctl.actions.operations import act_on_task, raise_unless_succeeded, waiter_of
from wvs.cli.wvsctl.actions.retrying import retry_failed
from wvs.cli.wvsctl.actions.showing import show_task
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.documents import TaskDocument
from wvs.cli.wvsctl.api.failures import UsageFailure
from wvs.cli.wvsctl.output.tables import TASKS

app = App(name="task", help="Follow asynchronous operations, retry and cancel them.")


@app.command(name="list")
def list_(
    *,
    workspace: Annotated[str | None, Parameter(completer=workspace_names)] = None,
    state: TaskStateChoice = None,
    kind: TaskKindChoice = None,
    paging: Paging = None,
    run: Run,
) -> None:
    """List tasks, newest first.

    Parameters
    ----------
    workspace
        Only tasks of this workspace (name or id).
    state
        Only tasks in this state.
    kind
        Only tasks of this kind.
    """
    filters = (("workspace", workspace), ("state", state), ("kind", kind))
    show_list(run, path_of("tasks"), filters, TASKS, TaskDocument, paging)


@app.command
def get(task: Task, /, *, run: Run) -> None:
    """Show a task."""
    show_task(run, run.client.get(path_of("tasks", task)).body)


@app.command
def wait(task: Task, /, *, run: Run) -> None:
    """Wait until a task is final. Exits with 0 if it succeeded, 6 if not, 7 if --wait-timeout expires first."""
    if run.options.no_wait:
        raise UsageFailure(
            "--no-wait cannot be used with task wait", f"to see the task without waiting: wvsctl task get {task}"
        )
    waiter = waiter_of(run)
    answer = run.client.get(path_of("tasks", task))
    document, raw = run.client.decode(answer, TaskDocument), answer.body
    if not document.is_final:
        waited = waiter.wait(document)
        document, raw = waited.task, waited.raw
    show_task(run, raw)
    raise_unless_succeeded(document)


@app.command
def retry(
    task: Annotated[str | None, Parameter(help="Id (task_…) of the task.", completer=task_ids)] = None,
    /,
    *,
    failed: Flag = False,
    code: str | None = None,
    workspace: Annotated[str | None, Parameter(completer=workspace_names)] = None,
    run: Run,
) -> None:
    """Queue a failed task again and wait for it; with --failed all failed tasks, after asking for confirmation.

    Parameters
    ----------
    failed
        Retry all failed tasks instead of one.
    code
        With --failed: only tasks that failed with this code, for example VOLUME_UNAVAILABLE.
    workspace
        With --failed: only tasks of this workspace (name or id).
    """
    if (task is None) is not failed:
        raise UsageFailure("give either the id of a task or --failed", "to see them: wvsctl task list --state failed")
    if task is not None:
        if code is not None or workspace is not None:
            raise UsageFailure("--code and --workspace go with --failed, not with the id of a task")
        act_on_task(run, task, "retry")
    else:
        retry_failed(run, code=code, workspace=workspace)


@app.command
def cancel(task: Task, /, *, run: Run) -> None:
    """Cancel a queued task, stop a running task at its next safe point, or give up a failed task."""
    act_on_task(run, task, "cancel")
