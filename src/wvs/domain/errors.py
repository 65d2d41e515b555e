"""Every error code of WVS, and the one exception of the domain.

The table of design §4 maps a code to its HTTP status; `STATUS` is that table. Codes without a status occur in
`task.error` only. A code is part of the API: it may be added, never renamed or given another meaning.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class ErrorCode(StrEnum):
    """The stable, machine-readable name of a failure."""

    INVALID_REQUEST = "INVALID_REQUEST"
    IDEMPOTENCY_KEY_REQUIRED = "IDEMPOTENCY_KEY_REQUIRED"
    INVALID_CURSOR = "INVALID_CURSOR"
    SESSION_SECRET_INVALID = "SESSION_SECRET_INVALID"  # noqa: S105 - a code
    WORKSPACE_NOT_FOUND = "WORKSPACE_NOT_FOUND"
    SNAPSHOT_NOT_FOUND = "SNAPSHOT_NOT_FOUND"
    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    VERSION_NOT_FOUND = "VERSION_NOT_FOUND"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    WORKSPACE_NAME_TAKEN = "WORKSPACE_NAME_TAKEN"
    WORKSPACE_NOT_ACTIVE = "WORKSPACE_NOT_ACTIVE"
    WORKSPACE_DISABLED = "WORKSPACE_DISABLED"
    WORKSPACE_NOT_INIT_FAILED = "WORKSPACE_NOT_INIT_FAILED"
    SNAPSHOT_NOT_READY = "SNAPSHOT_NOT_READY"
    SNAPSHOT_IN_USE = "SNAPSHOT_IN_USE"
    SNAPSHOT_DROPPED = "SNAPSHOT_DROPPED"
    TASK_NOT_RETRYABLE = "TASK_NOT_RETRYABLE"
    TASK_NOT_CANCELLABLE = "TASK_NOT_CANCELLABLE"
    IDEMPOTENCY_IN_FLIGHT = "IDEMPOTENCY_IN_FLIGHT"
    FREEZE_STALE = "FREEZE_STALE"
    CURRENT_CHANGED = "CURRENT_CHANGED"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    WORKSPACE_QUEUE_FULL = "WORKSPACE_QUEUE_FULL"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"
    DISK_FULL = "DISK_FULL"

    QUIESCE_TIMEOUT = "QUIESCE_TIMEOUT"
    QUIESCE_REFUSED = "QUIESCE_REFUSED"
    QUIESCE_BROKEN = "QUIESCE_BROKEN"
    TORN_CLONE = "TORN_CLONE"
    CLONE_FAILED = "CLONE_FAILED"
    VOLUME_FULL = "VOLUME_FULL"
    VOLUME_UNAVAILABLE = "VOLUME_UNAVAILABLE"
    TREE_MISSING = "TREE_MISSING"
    PATH_REPLACED = "PATH_REPLACED"
    REMOVE_FAILED = "REMOVE_FAILED"
    LEASE_LOST = "LEASE_LOST"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"


STATUS: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.IDEMPOTENCY_KEY_REQUIRED: 400,
    ErrorCode.INVALID_CURSOR: 400,
    ErrorCode.SESSION_SECRET_INVALID: 403,
    ErrorCode.WORKSPACE_NOT_FOUND: 404,
    ErrorCode.SNAPSHOT_NOT_FOUND: 404,
    ErrorCode.TASK_NOT_FOUND: 404,
    ErrorCode.SESSION_NOT_FOUND: 404,
    ErrorCode.VERSION_NOT_FOUND: 404,
    ErrorCode.ROUTE_NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.WORKSPACE_NAME_TAKEN: 409,
    ErrorCode.WORKSPACE_NOT_ACTIVE: 409,
    ErrorCode.WORKSPACE_DISABLED: 409,
    ErrorCode.WORKSPACE_NOT_INIT_FAILED: 409,
    ErrorCode.SNAPSHOT_NOT_READY: 409,
    ErrorCode.SNAPSHOT_IN_USE: 409,
    ErrorCode.SNAPSHOT_DROPPED: 409,
    ErrorCode.TASK_NOT_RETRYABLE: 409,
    ErrorCode.TASK_NOT_CANCELLABLE: 409,
    ErrorCode.IDEMPOTENCY_IN_FLIGHT: 409,
    ErrorCode.FREEZE_STALE: 409,
    ErrorCode.PATH_REPLACED: 409,
    ErrorCode.CURRENT_CHANGED: 412,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ErrorCode.IDEMPOTENCY_KEY_REUSED: 422,
    ErrorCode.WORKSPACE_QUEUE_FULL: 429,
    ErrorCode.INTERNAL: 500,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.DISK_FULL: 507,
}


class Refused(Exception):
    """The one exception of `decide`: the command is refused and has no effect.

    `code` identifies the reason, `detail` says in a sentence what was refused and why, `hint` says what to do next.
    `fields` are further values for the answer (for example `blockers`); they must be JSON-encodable.
    """

    def __init__(self, code: ErrorCode, detail: str, hint: str = "", **fields: Any) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.hint = hint
        self.fields = fields
