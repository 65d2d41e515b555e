"""Asynchronous writes: accepted under a key, waited for, and shown with what became of them."""

import uuid
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, assert_never

import msgspec
from msgspec import Raw, Struct

from wvs.cli.wvsctl.actions.invocation import Invocation
from wvs.cli.wvsctl.actions.showing import show_current, show_snapshot, show_task, show_workspace
from wvs.cli.wvsctl.actions.waiting import STEP_S, STEP_WITH_BAR_S, Waiter
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.documents import TaskDocument
from wvs.cli.wvsctl.api.failures import CancelCameTooLate, TaskFailed, interrupted_sending
from wvs.cli.wvsctl.api.transport import Answer
from wvs.cli.wvsctl.output.progress import watcher_for

TASK = "task"

Part: TypeAlias = Literal["workspace", "snapshot", "current"]
"""What an accepted write answers beside its task."""


class Write(Struct, frozen=True):
    """One asynchronous write, as design §9 has it."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = {}


def carry_out(run: Invocation, write: Write, part: Part) -> None:
    """Send `write`, wait for its task unless told otherwise, and show `part` as it then is.

    As JSON that is the API's answer with both of its parts brought up to date. Raises `TaskFailed` after showing it.
    """
    waiter = waiter_of(run)
    answer = send(run, write, wait_s=_hold_s(run, waiter))
    parts = run.client.decode(answer, dict[str, Raw])
    task = run.client.decode_bytes(parts.get(TASK, b""), TaskDocument)
    if not task.is_final and not run.options.no_wait:
        waited = waiter.wait(task)
        task = waited.task
        shown = run.client.get(path_that_shows(part, task))
        parts = {part: Raw(shown.body), TASK: Raw(waited.raw)}
    if run.screen.as_json:
        run.screen.show_json(msgspec.json.encode(parts))
    else:
        _tell(run, task)
        show_part(run, part, bytes(parts.get(part, b"")))
    judge(task)


def act_on_task(run: Invocation, task_id: str, action: Literal["retry", "cancel"]) -> None:
    """Retry or cancel a task, wait for what it leads to, show it, and judge it by what was wanted."""
    waiter = waiter_of(run)
    answer = send(run, Write("POST", path_of("tasks", task_id, action)), wait_s=_hold_s(run, waiter))
    task, raw = run.client.decode(answer, TaskDocument), answer.body
    if not task.is_final and not run.options.no_wait:
        waited = waiter.wait(task)
        task, raw = waited.task, waited.raw
    show_task(run, raw)
    match action:
        case "retry":
            judge(task)
        case "cancel":
            judge_cancel(task)
        case _:
            assert_never(action)


def send(run: Invocation, write: Write, *, wait_s: int) -> Answer:
    """The API's answer to `write` under the caller's key or a new one, which is told before anything is sent."""
    key = run.options.idempotency_key
    if key is None:
        key = str(uuid.uuid4())
        run.screen.say(f"idempotency key: {key}")
    try:
        answer = run.client.write(write.method, write.path, write.body, key=key, wait_s=wait_s, headers=write.headers)
    except KeyboardInterrupt:
        raise interrupted_sending(key) from None
    if answer.headers.get("idempotent-replayed") == "true":
        run.screen.say("this key was used before for the same request: it was done once, and this is its answer")
    return answer


def waiter_of(run: Invocation) -> Waiter:
    """A waiter that draws where a person looks."""
    return Waiter(
        run.client,
        watcher_for(run.screen),
        timeout_s=run.options.wait_timeout_s,
        step_s=STEP_WITH_BAR_S if run.screen.err_is_terminal else STEP_S,
    )


def path_that_shows(part: Part, task: TaskDocument) -> str:
    """Where the API shows what `task` changes."""
    match part:
        case "workspace":
            return path_of("workspaces", task.workspace_id)
        case "snapshot":
            return path_of("workspaces", task.workspace_id, "snapshots", task.snapshot_id or "")
        case "current":
            return path_of("workspaces", task.workspace_id, "current")
        case _:
            assert_never(part)


def show_part(run: Invocation, part: Part, body: bytes) -> None:
    """Print one part of an answer for a person."""
    match part:
        case "workspace":
            show_workspace(run, body)
        case "snapshot":
            show_snapshot(run, body)
        case "current":
            show_current(run, body)
        case _:
            assert_never(part)


def judge(task: TaskDocument) -> None:
    """Raises `TaskFailed` for a task that ended without success."""
    if task.state in ("failed", "cancelled"):
        raise TaskFailed(task)


def judge_cancel(task: TaskDocument) -> None:
    """Raises unless the task is cancelled or may still become so."""
    match task.state:
        case "succeeded":
            raise CancelCameTooLate(task)
        case "failed":
            raise TaskFailed(task)
        case _:
            pass


def _hold_s(run: Invocation, waiter: Waiter) -> int:
    return 0 if run.options.no_wait else waiter.first_wait_s()


def _tell(run: Invocation, task: TaskDocument) -> None:
    if task.noop:
        run.screen.say(f"{task.kind}: nothing had to be done (task {task.id})")
    elif not task.is_final:
        run.screen.say(f"{task.kind} accepted as task {task.id}; wait for it: wvsctl task wait {task.id}")
    else:
        run.screen.say(f"{task.kind} {task.state} (task {task.id})")
