"""What every error code means and what to do about it: one table, used in every problem."""

from collections.abc import Mapping
from typing import Final

import msgspec

from wvs.domain.errors import ErrorCode


class Explanation(msgspec.Struct, frozen=True):
    """`title` never changes for a code; `meaning` says what happened and why; `hint` what the caller can do."""

    title: str
    meaning: str
    hint: str


EXPLANATIONS: Final[Mapping[ErrorCode, Explanation]] = {
    ErrorCode.INVALID_REQUEST: Explanation(
        "The request is not valid",
        "A header, a parameter or the body does not have the form that the operation asks for. `errors` names each "
        "place and what is wrong with it. Nothing was done.",
        "Correct the named field and send the request again; /schema describes every operation.",
    ),
    ErrorCode.IDEMPOTENCY_KEY_REQUIRED: Explanation(
        "An idempotency key is required",
        "Every asynchronous write needs the header Idempotency-Key, so that it can be repeated after a lost answer "
        "without being done twice.",
        "Send Idempotency-Key with a new unique value, for example a UUID, and the same when you repeat this call.",
    ),
    ErrorCode.INVALID_CURSOR: Explanation(
        "The cursor is not valid here",
        "The cursor was cut off, changed, or made by a list with other filters. A cursor only continues the list that "
        "gave it.",
        "Use next_cursor unchanged and with the same filters, or leave the cursor out to begin again.",
    ),
    ErrorCode.WORKSPACE_NOT_FOUND: Explanation(
        "There is no such workspace",
        "No workspace has this id, and no workspace that is not disabled has this name.",
        "List the workspaces: wvsctl workspace list, or GET /v1/workspaces. A disabled one is found by its id.",
    ),
    ErrorCode.SNAPSHOT_NOT_FOUND: Explanation(
        "There is no such snapshot in this workspace",
        "The workspace has never had a snapshot with this id. Snapshots of other workspaces cannot be used here.",
        "List the workspace's snapshots: wvsctl snapshot list, or GET /v1/workspaces/{id}/snapshots.",
    ),
    ErrorCode.TASK_NOT_FOUND: Explanation(
        "There is no such task",
        "No task has ever had this id.",
        "List the tasks: wvsctl task list, or GET /v1/tasks.",
    ),
    ErrorCode.SESSION_NOT_FOUND: Explanation(
        "There is no such session",
        "No session has this id, or it has ended: a session that deregistered or was evicted cannot be used again.",
        "Register a new session: POST /v1/workspaces/{id}/sessions.",
    ),
    ErrorCode.VERSION_NOT_FOUND: Explanation(
        "The workspace has no such version",
        "The workspace has not so many events yet, or it did not exist at the time that was asked for, or that time is "
        "in the future.",
        "List the workspace's events: wvsctl audit log, or GET /v1/workspaces/{id}/events.",
    ),
    ErrorCode.ROUTE_NOT_FOUND: Explanation(
        "There is no such path",
        "The API has no operation under this path.",
        "See /schema for all operations; those on resources begin with /v1/.",
    ),
    ErrorCode.METHOD_NOT_ALLOWED: Explanation(
        "The path does not have this method",
        "The path exists, but not with this HTTP method. The header Allow and the field `allow` name those it has.",
        "Use one of the allowed methods; /schema describes every operation.",
    ),
    ErrorCode.WORKSPACE_NAME_TAKEN: Explanation(
        "The workspace name is taken",
        "Another workspace that is not disabled has this name.",
        "Choose another name, use the existing workspace, or disable it to free its name.",
    ),
    ErrorCode.WORKSPACE_NOT_ACTIVE: Explanation(
        "The workspace is not active",
        "The workspace is still being initialized, or its initialization failed, so it has no live tree to work with.",
        "Wait for its workspace_init task; if that failed, correct the cause and use retry-init.",
    ),
    ErrorCode.WORKSPACE_DISABLED: Explanation(
        "The workspace is disabled",
        "The workspace was disabled, which is final: its data stays and can be read, but it accepts no more writes.",
        "Use or create another workspace.",
    ),
    ErrorCode.WORKSPACE_NOT_INIT_FAILED: Explanation(
        "The workspace's initialization has not failed",
        "retry-init is for a workspace in the state init_failed only; this one is in another state.",
        "Look at its state: wvsctl workspace get. There is nothing to retry unless it is init_failed.",
    ),
    ErrorCode.SNAPSHOT_NOT_READY: Explanation(
        "The snapshot is not ready",
        "The operation needs a snapshot in the state ready. This one is being made or dropped, failed, or lost.",
        "Look at the snapshot's state and its task; choose a snapshot that is ready.",
    ),
    ErrorCode.SNAPSHOT_IN_USE: Explanation(
        "The snapshot is in use",
        "A snapshot cannot be dropped while it is current or while a task that can still run names it. `blockers` "
        "lists every reason.",
        "Set current to another snapshot, and wait for, cancel or abandon the tasks in blockers; then drop again.",
    ),
    ErrorCode.SNAPSHOT_DROPPED: Explanation(
        "The snapshot is dropped",
        "The snapshot's directory is gone, or going; it can be read about but never used again.",
        "Choose another snapshot that is ready.",
    ),
    ErrorCode.TASK_NOT_RETRYABLE: Explanation(
        "The task cannot be retried",
        "Only a failed task can be retried by hand. This one is waiting, running, succeeded or cancelled.",
        "Look at the task's state: wvsctl task get. To do a finished operation once more, send it again.",
    ),
    ErrorCode.TASK_NOT_CANCELLABLE: Explanation(
        "The task cannot be cancelled",
        "The task has already succeeded or been cancelled; what it did stays done.",
        "Look at the task's state: wvsctl task get. Undo its effect with a new operation if you need to.",
    ),
    ErrorCode.IDEMPOTENCY_IN_FLIGHT: Explanation(
        "The first request with this key is still being answered",
        "Another request with the same Idempotency-Key is in work at this moment, and its answer is not known yet.",
        "Repeat the same request after Retry-After seconds: it will get the first one's answer.",
    ),
    ErrorCode.FREEZE_STALE: Explanation(
        "The freeze is over",
        "The answer is about a freeze that is not the workspace's present one, so it was ignored.",
        "Ask for the session's present directive and answer that one: GET /v1/sessions/{id}/directive.",
    ),
    ErrorCode.CURRENT_CHANGED: Explanation(
        "Current is not what If-Match says",
        "The workspace's current pointer has moved since the ETag in If-Match was read. Nothing was done.",
        "Read GET /v1/workspaces/{id}/current again, decide again, and send its new ETag.",
    ),
    ErrorCode.BODY_TOO_LARGE: Explanation(
        "The body is too large",
        "A request body may have at most 65536 bytes. The rest was not read and the connection is closed.",
        "Send a smaller body. Files are not sent through this API: write them into the workspace's live tree.",
    ),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Explanation(
        "The body's media type is not supported",
        "Writes take JSON in UTF-8 and nothing else. The header is asked for even without a body: no web page can send "
        "it to this service without being stopped by the browser.",
        "Send the header Content-Type: application/json.",
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: Explanation(
        "The idempotency key was used for another request",
        "This Idempotency-Key was sent before with another method, path or body. A key belongs to one request.",
        "Use a new key for a new request, or repeat the first request exactly.",
    ),
    ErrorCode.WORKSPACE_QUEUE_FULL: Explanation(
        "The workspace's queue is full",
        "As many tasks wait in this workspace as may wait at once.",
        "Wait for tasks to finish, or cancel some, then repeat the request with the same Idempotency-Key.",
    ),
    ErrorCode.UNAVAILABLE: Explanation(
        "The service cannot do this at the moment",
        "The database cannot be reached, is too busy, or the service is starting or stopping. Whether a write was done "
        "may be unknown.",
        "Repeat the request after Retry-After seconds, a write with the same Idempotency-Key: it is never done twice.",
    ),
    ErrorCode.INTERNAL: Explanation(
        "The service failed",
        "The service met a case that it was not built for. The log tells more under this request_id.",
        "Report it with the request_id. A write may be repeated with the same Idempotency-Key: it is never done twice.",
    ),
    ErrorCode.QUIESCE_TIMEOUT: Explanation(
        "Not every session froze in time",
        "At least one registered session did not confirm the freeze within its budget, so nothing was cloned and "
        "whoever was frozen runs again. The error names the sessions.",
        "Look at the named session: wvsctl session list. End it, or evict it if it is gone; then retry the task.",
    ),
    ErrorCode.QUIESCE_REFUSED: Explanation(
        "A session refused to freeze",
        "A session could not stop its processes or could not flush what they had written, so nothing was cloned.",
        "Read the session's reason in the error, correct it on that host, then retry the task.",
    ),
    ErrorCode.QUIESCE_BROKEN: Explanation(
        "The freeze did not hold",
        "A session could not confirm that it stayed frozen until the clone was done, so the clone was discarded.",
        "Retry the task. If it happens again, look at the session's host: a restart breaks a freeze.",
    ),
    ErrorCode.TORN_CLONE: Explanation(
        "Something wrote while the clone was taken",
        "The live tree changed between the beginning and the end of the clone, so the clone was discarded.",
        "Find the writer that is no session (run it under wvsctl agent run) or stop it; then retry the task.",
    ),
    ErrorCode.CLONE_FAILED: Explanation(
        "The clone failed",
        "The volume's clone engine reported an error, and the unfinished tree was discarded.",
        "Read the detail of the error and the executor's log; correct the cause, then retry the task.",
    ),
    ErrorCode.VOLUME_FULL: Explanation(
        "The volume is full",
        "The volume has not enough free space or inodes for the tree.",
        "Drop snapshots that are not needed or enlarge the volume, then retry the task.",
    ),
    ErrorCode.VOLUME_UNAVAILABLE: Explanation(
        "The volume cannot be used",
        "The executor cannot reach or write the volume, or finds that it is not the volume it was set up with.",
        "Check the mount with wvs volume check, correct it, then retry the task (or retry-init of the workspace).",
    ),
    ErrorCode.TREE_MISSING: Explanation(
        "A tree is missing on the volume",
        "A directory that the database names is not on the volume. Somebody removed it; nothing stands in for it.",
        "See wvs volume check. Use another snapshot; a lost snapshot can only be dropped.",
    ),
    ErrorCode.REMOVE_FAILED: Explanation(
        "The snapshot could not be removed",
        "Removing the snapshot's directory failed part way. It can never become current again.",
        "Correct the cause named in the detail, then retry the task or drop the snapshot again.",
    ),
    ErrorCode.LEASE_LOST: Explanation(
        "The executor lost its lease",
        "The executor that ran the task was not heard of in time, so it may no longer change anything.",
        "Nothing while attempts last: another executor takes over. Then check the executors and retry the task.",
    ),
    ErrorCode.DEADLINE_EXCEEDED: Explanation(
        "The task took too long",
        "The task did not finish before its hard deadline and was ended.",
        "Find out what is slow (volume, size of the tree), then retry the task.",
    ),
    ErrorCode.CANCELLED: Explanation(
        "The task was cancelled",
        "Somebody asked for the task to be cancelled, or its workspace was disabled; it stopped at a safe point.",
        "Send the operation again, with a new Idempotency-Key, if it is still wanted.",
    ),
}
