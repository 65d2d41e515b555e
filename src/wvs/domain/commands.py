"""The commands that clients and executors send to one workspace.

Times, ids and random numbers come with the command (rule 8), so that a decision can be repeated exactly.
"""

from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from msgspec import Struct

from wvs.domain.values import DEFAULT_TENANT, Certificate, CloneReport, TaskError


class CreateWorkspace(Struct, frozen=True):
    """Create a workspace and queue its init task.

    `volume_id` is the identity of the volume that the database is bound to, None while it is bound to none.
    """

    name: str
    labels: dict[str, str]
    task_id: UUID
    tenant: str = DEFAULT_TENANT
    volume_id: UUID | None = None


class RetryInit(Struct, frozen=True):
    """Initialise the workspace again. `task_id` is for a new task, needed only if the earlier one was abandoned."""

    task_id: UUID


class DisableWorkspace(Struct, frozen=True):
    """Disable the workspace for good; its data stays."""

    reason: str | None = None


class CreateSnapshot(Struct, frozen=True):
    """Clone the live tree."""

    snapshot_id: UUID
    task_id: UUID
    message: str | None
    labels: dict[str, str]


class SetCurrent(Struct, frozen=True):
    """Replace the live tree by a clone of a snapshot. `if_epochs` are the epochs that the client's If-Match allows.

    `path_replaced_by`: what an executor last saw at the workspace's path instead of the link to the live tree.
    """

    snapshot_id: UUID
    task_id: UUID
    reset: bool = False
    if_epochs: frozenset[int] | None = None
    path_replaced_by: str | None = None


class DropSnapshot(Struct, frozen=True):
    """Delete a snapshot's directory, then mark it deleted."""

    snapshot_id: UUID
    task_id: UUID


class RetryTask(Struct, frozen=True):
    """Queue a failed task again."""

    task_id: UUID


class CancelTask(Struct, frozen=True):
    """Cancel a queued task, ask a running one to end, or abandon a failed one."""

    task_id: UUID


class EvictSession(Struct, frozen=True):
    """Take a session out of the required set of freezes."""

    session_id: UUID
    reason: str | None = None


class StartTask(Struct, frozen=True):
    """An executor claimed the head of the lane under `fence`; `tree` is the directory that it intends to make.

    `previous` is the error to record for the attempt of a holder that is gone, if the executor takes the task over.
    `path_replaced_by`: what the executor saw at the workspace's path instead of the link to the live tree, for a task
    that changes nothing.
    """

    task_id: UUID
    fence: int
    executor: str
    tree: str | None
    now: datetime
    previous: TaskError
    path_replaced_by: str | None = None


class FinishInit(Struct, frozen=True):
    """The live tree exists."""

    task_id: UUID
    fence: int
    tree: str
    engine: str


class FinishSnapshot(Struct, frozen=True):
    """The snapshot's tree is durable and its consistency is proven."""

    task_id: UUID
    fence: int
    tree: str
    report: CloneReport
    certificate: Certificate


class FinishSetCurrent(Struct, frozen=True):
    """The new live tree is durable and its consistency is proven."""

    task_id: UUID
    fence: int
    tree: str
    report: CloneReport
    certificate: Certificate


class FinishDrop(Struct, frozen=True):
    """The directory is gone and its parent synced."""

    task_id: UUID
    fence: int


class FailAttempt(Struct, frozen=True):
    """An attempt failed. `touched` says whether a drop had begun; `jitter` in [-1, 1] spreads the retries.

    `volume_away` says that the attempt failed because the executor cannot use the volume at all.
    """

    task_id: UUID
    fence: int
    error: TaskError
    now: datetime
    jitter: float
    touched: bool = True
    volume_away: bool = False


class HandBack(Struct, frozen=True):
    """A draining executor gives its task back unfinished; the attempt does not count."""

    task_id: UUID
    fence: int
    now: datetime
    touched: bool = True


class ReportLost(Struct, frozen=True):
    """The directory of a ready snapshot is missing."""

    snapshot_id: UUID
    detail: str


class ReportFound(Struct, frozen=True):
    """The directory of a lost snapshot is there again; the executor has compared it with the event of its creation."""

    snapshot_id: UUID
    detail: str


Command: TypeAlias = (
    CreateWorkspace
    | RetryInit
    | DisableWorkspace
    | CreateSnapshot
    | SetCurrent
    | DropSnapshot
    | RetryTask
    | CancelTask
    | EvictSession
    | StartTask
    | FinishInit
    | FinishSnapshot
    | FinishSetCurrent
    | FinishDrop
    | FailAttempt
    | HandBack
    | ReportLost
    | ReportFound
)
