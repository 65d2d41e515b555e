"""What every error code means and what to do about it: the table that every problem takes its texts from."""

from collections.abc import Mapping
from typing import Final

import msgspec

from wvs.domain.errors import ErrorCode


class Explanation(msgspec.Struct, frozen=True):
    """`title` never changes for a code. `meaning` says what happened and why. `hint` says what the caller can do."""

    title: str
    meaning: str
    hint: str


EXPLANATIONS: Final[Mapping[ErrorCode, Explanation]] = {
    ErrorCode.INVALID_REQUEST: Explanation(
        "The request is not valid",
        "A header, a parameter or the body does not have the form that the operation requires. `errors` names each "
        "field and its fault. Nothing was changed.",
        "Correct the named fields and send the request again. /schema describes every operation.",
    ),
    ErrorCode.IDEMPOTENCY_KEY_REQUIRED: Explanation(
        "The request needs an idempotency key",
        "Every asynchronous write needs the header Idempotency-Key. With it, a client that lost the answer can repeat "
        "the request, and the service does the work only once.",
        "Send Idempotency-Key with a new unique value, for example a UUID. Send the same value when you repeat this "
        "request.",
    ),
    ErrorCode.INVALID_CURSOR: Explanation(
        "The cursor or position is not valid here",
        "The cursor was cut off or changed, or it belongs to a list with other filters, or the position belongs to "
        "another log or is beyond the last event. A cursor continues only the list that returned it.",
        "Use next_cursor unchanged and with the same filters, or leave the cursor out to start from the beginning.",
    ),
    ErrorCode.WORKSPACE_NOT_FOUND: Explanation(
        "The workspace does not exist",
        "No workspace has this id, and no workspace has or had this name.",
        "List the workspaces: wvsctl workspace list, or GET /v1/workspaces.",
    ),
    ErrorCode.SNAPSHOT_NOT_FOUND: Explanation(
        "The snapshot does not exist in this workspace",
        "This workspace has never had a snapshot with this id. A workspace cannot use the snapshots of another "
        "workspace.",
        "List the workspace's snapshots: wvsctl snapshot list, or GET /v1/workspaces/{id}/snapshots.",
    ),
    ErrorCode.TASK_NOT_FOUND: Explanation(
        "The task does not exist",
        "No task has ever had this id.",
        "List the tasks: wvsctl task list, or GET /v1/tasks.",
    ),
    ErrorCode.SESSION_NOT_FOUND: Explanation(
        "The session does not exist",
        "No session has this id.",
        "List the workspace's sessions: wvsctl session list. An agent registers a new one with POST "
        "/v1/workspaces/{id}/sessions.",
    ),
    ErrorCode.SESSION_SECRET_INVALID: Explanation(
        "The session secret is missing or wrong",
        "Only the agent that registered a session may read its directives, acknowledge for it and end it. It shows "
        "that with the secret from the answer to its registration. This request has no secret, or that of another "
        "session. Nothing was changed.",
        "Send the header X-Session-Secret with the `secret` from the answer to the registration. If the secret is "
        "lost, make sure that the agent has ended, then run wvsctl session evict.",
    ),
    ErrorCode.VERSION_NOT_FOUND: Explanation(
        "The workspace has no such version",
        "The workspace has fewer events than this version, or it did not exist at this time, or this time is in the "
        "future.",
        "List the workspace's events: wvsctl audit log, or GET /v1/workspaces/{id}/events.",
    ),
    ErrorCode.ROUTE_NOT_FOUND: Explanation(
        "The path does not exist",
        "The API has no operation under this path.",
        "See /schema for all operations. The paths of resources begin with /v1/.",
    ),
    ErrorCode.METHOD_NOT_ALLOWED: Explanation(
        "The path does not support this method",
        "The path exists, but not with this HTTP method. The header Allow and the field `allow` name the methods that "
        "it supports.",
        "Use one of the allowed methods. /schema describes every operation.",
    ),
    ErrorCode.WORKSPACE_NAME_TAKEN: Explanation(
        "The workspace name is already in use",
        "Another workspace has this name and is not disabled.",
        "Choose another name, use the existing workspace, or disable it to free its name.",
    ),
    ErrorCode.WORKSPACE_NOT_ACTIVE: Explanation(
        "The workspace is not active",
        "The workspace is still initializing, or its initialization failed. It has no live tree yet.",
        "Wait for its workspace_init task. If that task failed, correct the cause and run wvsctl workspace retry-init.",
    ),
    ErrorCode.WORKSPACE_DISABLED: Explanation(
        "The workspace is disabled",
        "The workspace was disabled, which is final. Its data stays readable, but it accepts no more writes.",
        "Use another workspace, or create one.",
    ),
    ErrorCode.WORKSPACE_NOT_INIT_FAILED: Explanation(
        "The workspace's initialization has not failed",
        "retry-init applies only to a workspace in the state init_failed. This workspace is in another state.",
        "Look at its state: wvsctl workspace get. Use retry-init only if the state is init_failed.",
    ),
    ErrorCode.SNAPSHOT_NOT_READY: Explanation(
        "The snapshot is not ready",
        "The operation needs a snapshot in the state ready. This snapshot is being created or dropped, or it failed, "
        "or it is lost.",
        "Look at the snapshot's state (wvsctl snapshot get) and at its task. Wait for it, or choose a snapshot that is"
        " ready.",
    ),
    ErrorCode.SNAPSHOT_IN_USE: Explanation(
        "The snapshot is in use",
        "A snapshot cannot be dropped while it is current or while a task that can still run needs it. `blockers` "
        "lists every reason.",
        "Set current to another snapshot, and wait for the tasks in blockers or cancel them. Then drop the snapshot "
        "again.",
    ),
    ErrorCode.SNAPSHOT_DROPPED: Explanation(
        "The snapshot is dropped",
        "The snapshot's directory has been removed or is being removed. Its record can still be read, but it can never"
        " be used again.",
        "Choose another snapshot that is ready.",
    ),
    ErrorCode.TASK_NOT_RETRYABLE: Explanation(
        "The task cannot be retried",
        "Only a failed task can be retried. This task is queued, running, succeeded or cancelled.",
        "Look at the task's state: wvsctl task get. To repeat a finished operation, send it as a new request.",
    ),
    ErrorCode.TASK_NOT_CANCELLABLE: Explanation(
        "The task cannot be cancelled",
        "The task has already succeeded or has already been cancelled. Its effect stays.",
        "Look at the task's state: wvsctl task get. To undo its effect, send a new operation.",
    ),
    ErrorCode.IDEMPOTENCY_IN_FLIGHT: Explanation(
        "The first request with this key is still in progress",
        "The service is still working on another request with the same Idempotency-Key. Its answer is not known yet.",
        "Repeat the same request after Retry-After seconds. It will get the answer of the first request.",
    ),
    ErrorCode.FREEZE_STALE: Explanation(
        "The freeze does not wait for this acknowledgement",
        "The acknowledgement names a freeze that is over, or one that does not wait for this acknowledgement. The "
        "service ignored it.",
        "Get the session's current directive and acknowledge that one: GET /v1/sessions/{id}/directive.",
    ),
    ErrorCode.CURRENT_CHANGED: Explanation(
        "The current pointer does not match If-Match",
        "The workspace's current pointer has moved, or a task is about to move it, since the client read the ETag in "
        "If-Match. Nothing was changed.",
        "Read GET /v1/workspaces/{id}/current again, decide again, and send the new ETag.",
    ),
    ErrorCode.BODY_TOO_LARGE: Explanation(
        "The body is too large",
        "A request body may have at most 65536 bytes. The service did not read the rest and closes the connection.",
        "Send a smaller body. This API does not transfer files: write them into the workspace's live tree.",
    ),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Explanation(
        "The media type of the body is not supported",
        "Writes accept only JSON in UTF-8. A write without a body needs no Content-Type, unless a web page of another "
        "origin sends it: a browser asks this service first whether such a page may send JSON.",
        "Send the header Content-Type: application/json.",
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: Explanation(
        "The idempotency key belongs to another request",
        "A client has already sent this Idempotency-Key with another method, path or body. A key belongs to one "
        "request.",
        "Use a new key for a new request, or repeat the first request without any change.",
    ),
    ErrorCode.WORKSPACE_QUEUE_FULL: Explanation(
        "The workspace's queue is full",
        "The workspace already has the maximum number of queued tasks.",
        "Wait until tasks finish, or cancel some. Then repeat the request with the same Idempotency-Key.",
    ),
    ErrorCode.UNAVAILABLE: Explanation(
        "The service is temporarily unavailable",
        "The database is unreachable or overloaded, or the service is starting or stopping. A write may or may not "
        "have taken effect.",
        "Repeat the request after Retry-After seconds. Repeat a write with the same Idempotency-Key, and the service "
        "will do it only once.",
    ),
    ErrorCode.DISK_FULL: Explanation(
        "The disk of the database is full",
        "PostgreSQL found no room to write (SQLSTATE 53100), so the command had no effect. `detail` names the disk. "
        "Under wvs up, drops and cancels still work for a while, from a reserve.",
        "Drop snapshots if the volume is on the same disk: wvsctl snapshot drop. Else free space on the disk of the "
        "database. Read: wvs runbook disk-full.",
    ),
    ErrorCode.INTERNAL: Explanation(
        "The service failed unexpectedly",
        "The service met an error that its code does not handle. The service's log has the details under this "
        "request_id.",
        "Report the failure with its request_id. You may repeat a write with the same Idempotency-Key: the service "
        "will do it only once.",
    ),
    ErrorCode.QUIESCE_TIMEOUT: Explanation(
        "A session did not freeze in time",
        "At least one registered session did not confirm the freeze within the freeze budget. Nothing was cloned, and "
        "the frozen sessions run again. The error names the sessions that did not confirm.",
        "Look at the named sessions: wvsctl session list. End a session that hangs, or evict it if its agent is gone. "
        "Then retry the task.",
    ),
    ErrorCode.QUIESCE_REFUSED: Explanation(
        "A session refused to freeze",
        "A session could not stop its processes, or could not flush the data they had written. With "
        "WVS_BYSTANDERS=refuse also: a process outside every session holds the live tree. Nothing was published.",
        "Read the reason in the error and correct the cause on the host that it names: end it, or run it under "
        "wvsctl agent run. Then retry the task.",
    ),
    ErrorCode.QUIESCE_BROKEN: Explanation(
        "The freeze did not hold",
        "A session could not confirm that it stayed frozen until the end of the clone. The clone was discarded.",
        "Retry the task. If it fails again, look at the session's host: a restart of the host or of the agent breaks a"
        " freeze.",
    ),
    ErrorCode.TORN_CLONE: Explanation(
        "The live tree changed during the clone",
        "A process wrote to the live tree between the beginning and the end of the clone. The clone was discarded.",
        "Find the process that writes without a session. Stop it, or run it under wvsctl agent run. Then retry the "
        "task.",
    ),
    ErrorCode.CLONE_FAILED: Explanation(
        "The clone failed",
        "The tree holds something that cannot be cloned, such as a file that the service may not read or an active "
        "swap file, or the volume's clone engine reported another error. The incomplete tree was discarded.",
        "The detail of the error names the path and the cause, its hint what to do. Then retry the task.",
    ),
    ErrorCode.VOLUME_FULL: Explanation(
        "The volume is full",
        "The volume does not have enough free space or inodes for the tree and the 1 MiB that is kept free, or a quota "
        "is used up.",
        "The hint of the error names snapshots that can be dropped. Drop some, or enlarge the volume. Then retry the "
        "task.",
    ),
    ErrorCode.VOLUME_UNAVAILABLE: Explanation(
        "The volume is unavailable",
        "The executor cannot reach the volume or cannot write to it, or the mounted volume is not the one that the "
        "executor expects. A queued task with this error waits for the volume; a failed one has waited too long.",
        "Check the mount with wvs volume check and correct it. A queued task continues by itself. Retry a failed one "
        "with wvsctl task retry or wvsctl workspace retry-init.",
    ),
    ErrorCode.TREE_MISSING: Explanation(
        "A tree is missing on the volume",
        "The database names a directory that is not on the volume. Somebody removed it. The service does not replace "
        "it.",
        "Run wvs volume check. Use another snapshot, or bring the directory back: the snapshot is then ready again. "
        "Read: wvs runbook volume-losses.",
    ),
    ErrorCode.PATH_REPLACED: Explanation(
        "Something else is at the workspace's path",
        "The workspace's path does not lead to the live tree any more: somebody put a directory, a file or another "
        "link in the place of `live` or of the link `current`. A snapshot would hold other files than the path shows, "
        "so WVS took none. A request to set the snapshot that is current, which changes nothing, is refused as well, "
        "and a task that would change nothing fails.",
        "Copy what you need from the path into the live tree that the error names. Then run wvs volume check "
        "--repair, which moves what is at the path to quarantine and makes the path right again.",
    ),
    ErrorCode.REMOVE_FAILED: Explanation(
        "The removal of the snapshot failed",
        "Something in the snapshot's directory resists its removal. The snapshot can never become current again.",
        "The detail of the error names the entry, its hint the command that helps. Run it, then retry the task, or "
        "drop the snapshot again.",
    ),
    ErrorCode.LEASE_LOST: Explanation(
        "The executor lost its lease",
        "The executor that ran the task did not renew its lease in time. It may no longer change anything.",
        "While attempts remain, do nothing: another executor takes over the task. Otherwise check the executors, then "
        "retry the task.",
    ),
    ErrorCode.DEADLINE_EXCEEDED: Explanation(
        "The task exceeded its deadline",
        "The task did not finish before its hard deadline, and the executor ended it.",
        "Find out what is slow, for example the volume or the size of the tree. Then retry the task.",
    ),
    ErrorCode.CANCELLED: Explanation(
        "The task was cancelled",
        "A client cancelled the task, or disabled its workspace. The task stopped at a safe point.",
        "If you still need the operation, send it again with a new Idempotency-Key.",
    ),
}
