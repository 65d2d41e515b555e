"""`wvsctl task retry --failed`: retries every failed task that matches, and reports each."""

import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from wvs.cli.wvsctl.actions.invocation import Invocation
from wvs.cli.wvsctl.actions.operations import waiter_of
from wvs.cli.wvsctl.actions.waiting import Waiter
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.documents import PageDocument, TaskDocument
from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.api.failures import NotAllSucceeded, Refusal, WaitTimedOut, interrupted_sending

_PAGE: Final = 1000


class Retried(Struct, frozen=True):
    """The outcome for one task, as `--json` prints it: the task, or the problem of a refused retry."""

    task_id: str
    task: Raw | None = None
    problem: Raw | None = None


def retry_failed(run: Invocation, *, code: str | None, workspace: str | None) -> None:
    """Retries the failed tasks of `workspace` with the error `code` (None: any), oldest first, and waits for them.

    A task that the API refuses to retry, or that fails again, does not keep the others from it. Raises
    `NotAllSucceeded` after the last one.
    """
    failed = [task for task in _failed_tasks(run, workspace) if code is None or _code(task) == code]
    if not failed:
        run.screen.notify("no failed task matches: nothing to retry")
        return
    run.confirm(f"this retries {_summary(failed)}")
    # From here on the timeout of the wait counts.
    waiter, queued, exits = waiter_of(run), list[TaskDocument](), list[Exit]()
    key = run.options.idempotency_key or str(uuid.uuid4())
    run.screen.notify(f"idempotency key: {key}")
    for task in failed:
        accepted = _retry(run, task, key, exits)
        if accepted is not None:
            queued.append(accepted)
    for task in queued:
        _finish(run, task, waiter, exits)
    if exits:
        raise NotAllSucceeded(len(failed) - len(exits), len(failed), exits[0])


def _failed_tasks(run: Invocation, workspace: str | None) -> list[TaskDocument]:
    """Oldest first, so that a workspace's tasks run in the order in which they were accepted."""
    query = [("state", "failed"), ("limit", str(_PAGE)), *([("workspace", workspace)] if workspace else [])]
    found: list[TaskDocument] = []
    cursor: str | None = None
    while True:
        page = run.client.decode(
            run.client.get(path_of("tasks"), query if cursor is None else [*query, ("cursor", cursor)]), PageDocument
        )
        found += [run.client.decode_bytes(item, TaskDocument) for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found[::-1]


def _retry(run: Invocation, task: TaskDocument, key: str, exits: list[Exit]) -> TaskDocument | None:
    try:
        # Each task has a key of its own, made of the printed one: the command can be repeated as a whole.
        answer = run.client.write("POST", path_of("tasks", task.id, "retry"), None, key=f"{key}:{task.id}")
    except Refusal as refusal:
        exits.append(refusal.exit)
        run.screen.notify(f"{task.kind} {task.id}: not retried: {refusal.message} [{refusal.problem.code}]")
        if run.screen.as_json:
            run.screen.show_json(msgspec.json.encode(Retried(task.id, problem=Raw(refusal.body))))
        return None
    except KeyboardInterrupt:
        raise interrupted_sending(key) from None
    accepted = run.client.decode(answer, TaskDocument)
    if run.options.no_wait:
        _show(run, accepted, answer.body)
    return accepted


def _finish(run: Invocation, task: TaskDocument, waiter: Waiter, exits: list[Exit]) -> None:
    if run.options.no_wait:
        return
    try:
        ended = waiter.wait(task)
    except WaitTimedOut as late:
        exits.append(late.exit)
        run.screen.notify(f"{task.kind} {task.id}: {late.message}")
        return
    if ended.task.state != "succeeded":
        exits.append(Exit.TASK_FAILED)
    _show(run, ended.task, ended.raw)


def _show(run: Invocation, task: TaskDocument, raw: bytes) -> None:
    if run.screen.as_json:
        run.screen.show_json(msgspec.json.encode(Retried(task.id, task=Raw(raw))))
        return
    error = f": {task.error.detail} [{task.error.code}]" if task.error and task.state == "failed" else ""
    run.screen.show(f"{task.kind} {task.id}: {task.state}{error}")


def _summary(tasks: Sequence[TaskDocument]) -> str:
    codes = ", ".join(f"{count} {code}" for code, count in Counter(map(_code, tasks)).most_common())
    return f"{len(tasks)} failed task{'s'[: len(tasks) != 1]} ({codes})"


def _code(task: TaskDocument) -> str:
    return task.error.code if task.error else ""
