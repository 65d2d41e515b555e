"""Asynchronous operations: sends one under an idempotency key, waits for its task and prints the result."""

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
"""The resource that the API returns beside the task of an accepted operation."""


class OperationRequest(Struct, frozen=True):
    """The HTTP request that starts one asynchronous operation (design §9)."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = {}


def run_operation(run: Invocation, request: OperationRequest, part: Part) -> None:
    """Sends `request`, waits for its task unless `--no-wait` was given, and prints the new state of `part`.

    With `--json` it prints the API's answer with both parts up to date. Raises `TaskFailed` after printing.
    """
    waiter = waiter_of(run)
    answer = send(run, request, wait_s=_prefer_wait_s(run, waiter))
    parts = run.client.decode(answer, dict[str, Raw])
    task = run.client.decode_bytes(parts.get(TASK, b""), TaskDocument)
    if not task.is_final and not run.options.no_wait:
        waited = waiter.wait(task)
        task = waited.task
        shown = waiter.read(path_of_part(part, task), task)
        parts = {part: Raw(shown.body), TASK: Raw(waited.raw)}
    if run.screen.as_json:
        run.screen.show_json(msgspec.json.encode(parts))
    else:
        _notify_task_state(run, task)
        show_part(run, part, bytes(parts.get(part, b"")))
    raise_unless_succeeded(task)


def act_on_task(run: Invocation, task_id: str, action: Literal["retry", "cancel"]) -> None:
    """Retries or cancels a task, waits until it is final and prints it; raises if the action had no success."""
    waiter = waiter_of(run)
    answer = send(run, OperationRequest("POST", path_of("tasks", task_id, action)), wait_s=_prefer_wait_s(run, waiter))
    task, raw = run.client.decode(answer, TaskDocument), answer.body
    if not task.is_final and not run.options.no_wait:
        waited = waiter.wait(task)
        task, raw = waited.task, waited.raw
    show_task(run, raw)
    match action:
        case "retry":
            raise_unless_succeeded(task)
        case "cancel":
            raise_unless_cancelled(task)
        case _:
            assert_never(action)


def send(run: Invocation, request: OperationRequest, *, wait_s: int) -> Answer:
    """Sends `request` under the user's idempotency key, or under a new key that it prints first; returns the answer."""
    key = run.options.idempotency_key
    if key is None:
        key = str(uuid.uuid4())
        run.screen.notify(f"idempotency key: {key}")
    try:
        answer = run.client.write(
            request.method, request.path, request.body, key=key, wait_s=wait_s, headers=request.headers
        )
    except KeyboardInterrupt:
        raise interrupted_sending(key) from None
    if answer.headers.get("idempotent-replayed") == "true":
        run.screen.notify(
            "the API has already accepted this request under this key; it ran once, and this is its answer"
        )
    return answer


def waiter_of(run: Invocation) -> Waiter:
    """A waiter that draws a progress bar if stderr is a terminal."""
    return Waiter(
        run.client,
        watcher_for(run.screen),
        timeout_s=run.options.wait_timeout_s,
        step_s=STEP_WITH_BAR_S if run.screen.err_is_terminal else STEP_S,
    )


def path_of_part(part: Part, task: TaskDocument) -> str:
    """The API's path of the resource that `task` changes."""
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
    """Prints one part of an answer as text."""
    match part:
        case "workspace":
            show_workspace(run, body)
        case "snapshot":
            show_snapshot(run, body)
        case "current":
            show_current(run, body)
        case _:
            assert_never(part)


def raise_unless_succeeded(task: TaskDocument) -> None:
    """Raises `TaskFailed` if the task failed or was cancelled."""
    if task.state in ("failed", "cancelled"):
        raise TaskFailed(task)


def raise_unless_cancelled(task: TaskDocument) -> None:
    """Raises if the task succeeded or failed; a task that is not final may still be cancelled."""
    match task.state:
        case "succeeded":
            raise CancelCameTooLate(task)
        case "failed":
            raise TaskFailed(task)
        case _:
            pass


def _prefer_wait_s(run: Invocation, waiter: Waiter) -> int:
    return 0 if run.options.no_wait else waiter.first_wait_s()


def _notify_task_state(run: Invocation, task: TaskDocument) -> None:
    if task.noop:
        run.screen.notify(f"{task.kind}: nothing to do (task {task.id})")
    elif not task.is_final:
        run.screen.notify(f"{task.kind} accepted as task {task.id}; to wait for it: wvsctl task wait {task.id}")
        if task.waiting_for is not None:
            run.screen.notify(f"the task waits: {task.waiting_for.detail}")
    else:
        run.screen.notify(f"{task.kind} {task.state} (task {task.id})")
        for note in task.notes if task.kind == "current_set" else ():
            run.screen.notify(note)
