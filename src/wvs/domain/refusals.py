"""Refusals that several commands share, each with a hint what to do next."""

import re
from typing import Final
from uuid import UUID

from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.ids import SNAPSHOT, TASK, format_id
from wvs.domain.policy import QUEUE_LIMIT
from wvs.domain.states import SnapshotState, WorkspaceState
from wvs.domain.values import LABEL_KEY_PATTERN, TaskError
from wvs.domain.workspace import Snapshot, Workspace

_LABEL_KEY: Final = re.compile(LABEL_KEY_PATTERN)


def existing_snapshot(workspace: Workspace, snapshot_id: UUID) -> Snapshot:
    """The snapshot, unless it was never requested (`SNAPSHOT_NOT_FOUND`) or was dropped (`SNAPSHOT_DROPPED`)."""
    snapshot = workspace.snapshots.get(snapshot_id)
    if snapshot is None:
        raise Refused(ErrorCode.SNAPSHOT_NOT_FOUND, "This workspace has no such snapshot.", "wvsctl snapshot list")
    if snapshot.state is SnapshotState.DROPPED:
        raise Refused(ErrorCode.SNAPSHOT_DROPPED, f"Snapshot {format_id(SNAPSHOT, snapshot_id)} was dropped.")
    return snapshot


def refuse_not_ready(snapshot: Snapshot) -> None:
    """Raises `SNAPSHOT_NOT_READY` unless the snapshot can become current."""
    if snapshot.state is SnapshotState.READY:
        return
    raise Refused(
        ErrorCode.SNAPSHOT_NOT_READY,
        f"Snapshot {format_id(SNAPSHOT, snapshot.id)} is {snapshot.state}, not ready.",
        "wvsctl snapshot get shows its state; wvsctl snapshot list --state ready shows those that can be used.",
        state=snapshot.state,
    )


def task_blocker(task_id: UUID) -> dict[str, str]:
    """A task as an item of the field `blockers`."""
    return {"kind": "task", "id": format_id(TASK, task_id)}


def refuse_disabled(workspace: Workspace) -> None:
    """Raises `WORKSPACE_DISABLED`: every write but a repeated disable is refused (design §2)."""
    if workspace.state is WorkspaceState.DISABLED:
        raise Refused(
            ErrorCode.WORKSPACE_DISABLED,
            "The workspace is disabled, which is final: its data stays and reads work, writes are refused.",
        )


def refuse_inactive(workspace: Workspace) -> None:
    """Raises `WORKSPACE_DISABLED` or `WORKSPACE_NOT_ACTIVE` unless the workspace has a live tree to work with."""
    refuse_disabled(workspace)
    if workspace.state is not WorkspaceState.ACTIVE:
        raise Refused(
            ErrorCode.WORKSPACE_NOT_ACTIVE,
            f"The workspace is {workspace.state}, not active.",
            "Wait for its init task. If that failed, remove the cause and run wvsctl workspace retry-init.",
            state=workspace.state,
        )


def refuse_full_queue(workspace: Workspace) -> None:
    """Raises `WORKSPACE_QUEUE_FULL` if no more tasks can be queued."""
    if len(workspace.queued) >= QUEUE_LIMIT:
        raise Refused(
            ErrorCode.WORKSPACE_QUEUE_FULL,
            f"{QUEUE_LIMIT} tasks of this workspace are queued already.",
            "Wait for some of them to end, or cancel some (wvsctl task cancel).",
            limit=QUEUE_LIMIT,
        )


def refuse_bad_labels(labels: dict[str, str]) -> None:
    """Raises `INVALID_REQUEST` for an invalid key. Its `$` lets a trailing newline pass; `fullmatch` does not."""
    bad = next((k for k in labels if not _LABEL_KEY.fullmatch(k)), None)
    if bad is not None:
        raise Refused(
            ErrorCode.INVALID_REQUEST,
            f"{bad[:80]!r} is not a valid label key.",
            "Use 1 to 63 of the characters a-z, A-Z, 0-9, . _ / -; the first and the last must be a letter or a digit.",
        )


def refuse_replaced_path(replaced_by: str | None) -> None:
    """Raises `PATH_REPLACED` if the workspace's path shows other files than the live tree: nothing moves those here."""
    if replaced_by is not None:
        error = path_replaced(replaced_by)
        raise Refused(error.code, error.detail, error.hint)


def path_replaced(replaced_by: str) -> TaskError:
    """The error of a `current_set` that would change nothing while something else stands at the workspace's path."""
    return TaskError(
        ErrorCode.PATH_REPLACED,
        f"The snapshot is current, but {replaced_by} is at the workspace's path instead of the live tree.",
        "To keep the live tree: wvs volume check --repair moves what is at the path to quarantine and makes the path "
        "right again. If it is the live tree and only the file `name` beside its root was removed, write that file "
        "first: the error of a snapshot says what. To replace the live tree, too: wvsctl current set --reset. WVS "
        "notices within about a minute if the path was cleared by hand.",
    )


def refuse_changed_current(allowed: frozenset[int], workspace: Workspace) -> None:
    """Raises `CURRENT_CHANGED` unless the epoch is allowed and no task is about to change it.

    A compare-and-set that waits behind another mover would compare with a value that is about to change.
    """
    if workspace.epoch in allowed and not workspace.movers:
        return
    changed = workspace.epoch not in allowed
    raise Refused(
        ErrorCode.CURRENT_CHANGED,
        "The current snapshot has changed." if changed else "A task is about to change the current snapshot.",
        "Read it again (wvsctl current get), decide again, and send the new ETag.",
        epoch=workspace.epoch,
        blockers=[task_blocker(t) for t in workspace.movers],
    )
