"""One workspace's story, as the examples of the OpenAPI document tell it: every operation's requests and answers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec.structs import asdict, replace

from wvs.domain.errors import STATUS, ErrorCode
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.http.event_views import EventDetail, EventList, EventView
from wvs.http.openapi.document import Examples
from wvs.http.problems.explanations import EXPLANATIONS
from wvs.http.resources.chains import ChainView, HeadList, HeadView, StoredEventList, StoredEventView
from wvs.http.resources.current import NewCurrent
from wvs.http.resources.history import HistoryView
from wvs.http.resources.probes import ExplainedCode, Liveness, Ready
from wvs.http.resources.snapshots import NewSnapshot
from wvs.http.resources.workspaces import Disabling, NewWorkspace, Nothing
from wvs.http.session_views import (
    DirectiveView,
    Eviction,
    FreezeRefused,
    Frozen,
    NewSession,
    Registered,
    SessionList,
    SessionView,
    StillFrozen,
    Switched,
)
from wvs.http.views import (
    CertificateView,
    CurrentAccepted,
    CurrentView,
    MemberView,
    SnapshotAccepted,
    SnapshotList,
    SnapshotView,
    TaskList,
    TaskView,
    WorkspaceAccepted,
    WorkspaceList,
    WorkspaceView,
)
from wvs.quiesce.sessions import DirectiveKind, SessionState
from wvs.readmodel.rows import ProgressRow

_WORKSPACE_ID: Final = "ws_01kax3y0c8ecf8xg6d2dpjy7xq"
_SNAPSHOT_ID: Final = "snap_01kax40tvae8ets4x7w4s1x6gp"
_INIT_ID: Final = "task_01kax3y0c8ecf8xg6d5sn1ytfw"
_CREATE_ID: Final = "task_01kax40tvae8ets4x7wv6n0q3c"
_SET_ID: Final = "task_01kax42k3reyvb5tq9m5q9w3k8"
_DROP_ID: Final = "task_01kax45b6mfrqt8xz1ebq3s7zn"
_SESSION_ID: Final = "sess_01kax3z9f1f6ktv1n2k0h9r5da"
_KEY: Final = "8f14e45f-ceea-467f-a3d2-b1c1b6d9a1b7"
_PATH: Final = f"/srv/wvs/{_WORKSPACE_ID}/current"
_TREE: Final = "01kax3y0c8ecf8xg6d5sn1ytfw.1"


def _at(minute: int, second: int, millisecond: int = 0) -> datetime:
    return datetime(2026, 11, 23, 9, minute, second, millisecond * 1000, tzinfo=UTC)


_WORKSPACE: Final = WorkspaceView(
    id=_WORKSPACE_ID,
    name="agent-7",
    state=WorkspaceState.ACTIVE,
    labels={"team": "search"},
    current_snapshot_id=None,
    path=_PATH,
    epoch=1,
    error=None,
    created_at=_at(0, 0),
    disabled_at=None,
)
_NEW_WORKSPACE: Final = replace(_WORKSPACE, state=WorkspaceState.INITIALIZING, epoch=0)
_CERTIFICATE: Final = CertificateView(
    freeze=1,
    vacuous=False,
    members=[MemberView(_SESSION_ID, "b0f6c0de.1.1", "ok")],
    stamp_before="9b1f3c44",
    stamp_after="9b1f3c44",
    engine="reflink",
    frozen_at=_at(2, 0, 41),
    resumed_at=_at(2, 0, 96),
)
_SNAPSHOT: Final = SnapshotView(
    id=_SNAPSHOT_ID,
    workspace_id=_WORKSPACE_ID,
    state=SnapshotState.READY,
    message="before the refactoring",
    labels={"step": "12"},
    engine="reflink",
    files=1204,
    bytes=18874368,
    certificate=_CERTIFICATE,
    error=None,
    created_at=_at(2, 0),
    ready_at=_at(2, 0, 131),
    deleted_at=None,
)
_NEW_SNAPSHOT: Final = replace(
    _SNAPSHOT, state=SnapshotState.CREATING, engine=None, files=None, bytes=None, certificate=None, ready_at=None
)


def _queued(task_id: str, kind: TaskKind, created_at: datetime, snapshot_id: str | None = _SNAPSHOT_ID) -> TaskView:
    return TaskView(
        id=task_id,
        workspace_id=_WORKSPACE_ID,
        snapshot_id=snapshot_id,
        kind=kind,
        state=TaskState.QUEUED,
        noop=False,
        attempt=0,
        max_attempts=5,
        progress=None,
        error=None,
        created_at=created_at,
        started_at=None,
        finished_at=None,
        next_attempt_at=None,
    )


_INIT: Final = _queued(_INIT_ID, TaskKind.WORKSPACE_INIT, _at(0, 0), snapshot_id=None)
_CREATE: Final = _queued(_CREATE_ID, TaskKind.SNAPSHOT_CREATE, _at(2, 0))
_RUNNING: Final = replace(
    _CREATE,
    state=TaskState.RUNNING,
    attempt=1,
    progress=ProgressRow("clone", 310, 1204, 4194304, 18874368),
    started_at=_at(2, 0, 12),
)
_CREATED: Final = replace(
    _RUNNING, state=TaskState.SUCCEEDED, progress=ProgressRow("done", 1204, 1204), finished_at=_at(2, 0, 131)
)
_SET: Final = _queued(_SET_ID, TaskKind.CURRENT_SET, _at(4, 0))
_DROP: Final = _queued(_DROP_ID, TaskKind.SNAPSHOT_DROP, _at(8, 0))
_CURRENT: Final = CurrentView(_SNAPSHOT_ID, _PATH, 2)
_SESSION: Final = SessionView(
    id=_SESSION_ID,
    workspace_id=_WORKSPACE_ID,
    state=SessionState.ACTIVE,
    agent="coder",
    host="build-3",
    pid=4711,
    epoch=1,
    lease_until=_at(1, 30),
    lease_expired=False,
    reason=None,
    registered_at=_at(1, 0),
    ended_at=None,
)
_DIRECTIVE: Final = DirectiveView(
    number=1,
    kind=DirectiveKind.RUN,
    freeze=None,
    member=False,
    resume=False,
    answer_after_s=0.0,
    budget_s=None,
    epoch=1,
    path=f"/srv/wvs/{_WORKSPACE_ID}/trees/{_TREE}/root",
    reason=None,
)
_FREEZE: Final = replace(_DIRECTIVE, number=2, kind=DirectiveKind.FREEZE, freeze=1, member=True, budget_s=9.9)
_EVENT: Final = EventView(
    position="1:42",
    workspace_id=_WORKSPACE_ID,
    version=3,
    type="snapshot.requested.v1",
    occurred_at=_at(2, 0),
    actor="ci/build-17",
    request_id="0f8b6f7b2c1d4e5fa0b1c2d3e4f50617",
    data={
        "snapshot_id": _SNAPSHOT_ID,
        "task_id": _CREATE_ID,
        "message": "before the refactoring",
        "labels": {"step": "12"},
    },
    hash="5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
)
_EVENT_IN_FULL: Final = EventDetail(
    **asdict(_EVENT),
    actor_verified=False,
    idempotency_key=_KEY,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    causation=None,
)
_STORED: Final = StoredEventView(
    position=_EVENT.position,
    workspace_id=_WORKSPACE_ID,
    version=_EVENT.version,
    type=_EVENT.type,
    state="eyJldmVudCI6eyJ0eXBlIjoic25hcHNob3QucmVxdWVzdGVkLnYxIn19",
    hash=_EVENT.hash,
    occurred_at=_EVENT.occurred_at,
    actor=_EVENT.actor,
    request_id=_EVENT.request_id,
    task_id=_CREATE_ID,
    snapshot_id=_SNAPSHOT_ID,
)
_HEAD: Final = HeadView(_WORKSPACE_ID, _EVENT.version, _EVENT.hash)
_HISTORY: Final = HistoryView(
    version=3,
    latest_version=17,
    position="1:42",
    occurred_at=_at(2, 0),
    hash=_EVENT.hash,
    workspace=_WORKSPACE,
    current=CurrentView(None, _PATH, 1),
    live_tree=_TREE,
    snapshots=SnapshotList([_NEW_SNAPSHOT], None),
    tasks=TaskList([_CREATE, replace(_INIT, state=TaskState.SUCCEEDED, attempt=1, finished_at=_at(0, 1))], None),
)
_IN_USE: Final = ErrorCode.SNAPSHOT_IN_USE


def _explained(code: ErrorCode) -> ExplainedCode:
    told = EXPLANATIONS[code]
    return ExplainedCode(code, STATUS.get(code), told.title, told.meaning, told.hint)


_OF_WORKSPACE: Final = {"workspace": "agent-7"}
_WRITE: Final = {**_OF_WORKSPACE, "Idempotency-Key": _KEY}
_OF_SESSION: Final = {"session": _SESSION_ID}

EXAMPLES: Final[Mapping[str, Examples]] = {
    "getLiveness": Examples({200: {"alive": Liveness()}}),
    "getReadiness": Examples({200: {"ready": Ready()}}),
    "getMetrics": Examples({200: {"two lines": 'wvs_tasks{kind="snapshot_create",state="queued"} 3.0\n'}}),
    "explainProblem": Examples({200: {"in use": _explained(_IN_USE)}}, parameters={"code": str(_IN_USE)}),
    "createWorkspace": Examples(
        {202: {"accepted": WorkspaceAccepted(_NEW_WORKSPACE, _INIT)}},
        {
            "a name": NewWorkspace("agent-7"),
            "with labels": NewWorkspace("agent-7", {"team": "search"}),
        },
        {"Idempotency-Key": _KEY, "Prefer": "wait=10"},
    ),
    "listWorkspaces": Examples({200: {"the only page": WorkspaceList([_WORKSPACE], None)}}),
    "getWorkspace": Examples({200: {"active": _WORKSPACE}}, parameters=_OF_WORKSPACE),
    "retryInit": Examples(
        {202: {"accepted": WorkspaceAccepted(_NEW_WORKSPACE, _INIT)}}, {"nothing": Nothing()}, _WRITE
    ),
    "disableWorkspace": Examples(
        {200: {"disabled": replace(_WORKSPACE, state=WorkspaceState.DISABLED, disabled_at=_at(9, 0))}},
        {"with a reason": Disabling("the project is over"), "nothing": Disabling()},
        _WRITE,
    ),
    "createSnapshot": Examples(
        {202: {"accepted": SnapshotAccepted(_NEW_SNAPSHOT, _CREATE)}},
        {"with a message": NewSnapshot("before the refactoring", {"step": "12"}), "nothing": NewSnapshot()},
        {**_WRITE, "Prefer": "wait=10"},
    ),
    "listSnapshots": Examples(
        {200: {"a page": SnapshotList([_SNAPSHOT], "kTfQ2h0mJm1Xl0aZIjAxOTNhLi4uIg")}},
        parameters={**_OF_WORKSPACE, "state": "ready", "label": ["step=12"]},
    ),
    "getSnapshot": Examples({200: {"ready": _SNAPSHOT}}, parameters={**_OF_WORKSPACE, "snapshot": _SNAPSHOT_ID}),
    "dropSnapshot": Examples(
        {202: {"accepted": SnapshotAccepted(replace(_SNAPSHOT, state=SnapshotState.DROPPING), _DROP)}},
        parameters={**_WRITE, "snapshot": _SNAPSHOT_ID},
    ),
    "getCurrent": Examples({200: {"set": _CURRENT}}, parameters=_OF_WORKSPACE),
    "setCurrent": Examples(
        {
            202: {"accepted": CurrentAccepted(CurrentView(None, _PATH, 1), _SET)},
            200: {
                "it was current": CurrentAccepted(
                    _CURRENT, replace(_SET, state=TaskState.SUCCEEDED, noop=True, finished_at=_at(4, 0))
                )
            },
        },
        {"a snapshot": NewCurrent(_SNAPSHOT_ID), "afresh": NewCurrent(_SNAPSHOT_ID, reset=True)},
        {**_WRITE, "If-Match": '"1"'},
    ),
    "listTasks": Examples(
        {200: {"the only page": TaskList([_RUNNING], None)}}, parameters={**_OF_WORKSPACE, "state": "running"}
    ),
    "getTask": Examples(
        {200: {"running": _RUNNING, "succeeded": _CREATED}}, parameters={"task": _CREATE_ID, "Prefer": "wait=10"}
    ),
    "retryTask": Examples(
        {202: {"queued again": _CREATE}},
        {"nothing": Nothing()},
        {"task": _CREATE_ID, "Idempotency-Key": _KEY},
    ),
    "cancelTask": Examples(
        {202: {"cancelled": replace(_CREATE, state=TaskState.CANCELLED, finished_at=_at(2, 1))}},
        {"nothing": Nothing()},
        {"task": _CREATE_ID, "Idempotency-Key": _KEY},
    ),
    "streamEvents": Examples(
        {
            200: {
                "a sign of life and an event": ": alive\nid: 1:41\n\nid: 1:42\ndata: "
                + msgspec.json.encode(_EVENT).decode()
                + "\n\n"
            }
        },
        parameters={**_OF_WORKSPACE, "type": ["snapshot.requested.v1"], "Last-Event-ID": "1:41"},
    ),
    "listEvents": Examples(
        {200: {"the end": EventList([_EVENT], None)}},
        parameters={"after": "1:41", "actor": "ci/build-17", "since": "2026-11-23T09:00:00Z"},
    ),
    "listWorkspaceEvents": Examples(
        {200: {"a full page": EventList([_EVENT], "1:42")}},
        parameters={**_OF_WORKSPACE, "limit": 1, "type": _EVENT.type},
    ),
    "getWorkspaceEvent": Examples(
        {200: {"a request for a snapshot": _EVENT_IN_FULL}}, parameters={**_OF_WORKSPACE, "version": 3}
    ),
    "getWorkspaceHistory": Examples(
        {200: {"while its first snapshot was waited for": _HISTORY}}, parameters={**_OF_WORKSPACE, "at_version": 3}
    ),
    "listChainHeads": Examples({200: {"the only page": HeadList(_EVENT.position, [_HEAD], None)}}),
    "listStoredEvents": Examples(
        {200: {"a full page": StoredEventList([_STORED], _EVENT.position)}}, parameters={"after": "1:41", "limit": 1}
    ),
    "getWorkspaceChain": Examples(
        {200: {"the end": ChainView(_HEAD, [_STORED], None)}}, parameters={**_OF_WORKSPACE, "after_version": 2}
    ),
    "registerSession": Examples(
        {201: {"registered": Registered(_SESSION, _DIRECTIVE)}},
        {"an agent": NewSession("coder", "build-3", 4711), "a short lease": NewSession("coder", "build-3", lease_s=10)},
        _OF_WORKSPACE,
    ),
    "listSessions": Examples({200: {"the only page": SessionList([_SESSION], None)}}, parameters=_OF_WORKSPACE),
    "getDirective": Examples(
        {200: {"run": _DIRECTIVE, "freeze": _FREEZE}}, parameters={**_OF_SESSION, "after": 1, "wait": 30}
    ),
    "acknowledge": Examples(
        {200: {"the next directive": _DIRECTIVE}},
        {
            "frozen": Frozen(1, "b0f6c0de.1.1", "ok"),
            "refused": FreezeRefused(1, "a process is in uninterruptible sleep"),
            "still frozen": StillFrozen(1, "b0f6c0de.1.1"),
            "switched": Switched(2),
        },
        {**_OF_SESSION, "after": 1, "wait": 1},
    ),
    "endSession": Examples(
        {200: {"ended": replace(_SESSION, state=SessionState.ENDED, ended_at=_at(6, 0))}}, parameters=_OF_SESSION
    ),
    "evictSession": Examples(
        {
            200: {
                "evicted": replace(_SESSION, state=SessionState.EVICTED, reason="the host is gone", ended_at=_at(6, 0))
            }
        },
        {"with a reason": Eviction("host is gone"), "nothing": Eviction()},
        _OF_SESSION,
    ),
}
"""By operation id."""
