"""One event of each kind with every field filled, as it was when its golden file was written.

A golden file is never edited: an event that has to change gets a new name, a new sample and a new file.
"""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from wvs.domain.errors import ErrorCode
from wvs.domain.events import (
    CurrentSet,
    CurrentSetFailed,
    CurrentSetRequested,
    CurrentSetSkipped,
    Event,
    SessionEvicted,
    SnapshotCreated,
    SnapshotDropFailed,
    SnapshotDropped,
    SnapshotDropRequested,
    SnapshotFailed,
    SnapshotFound,
    SnapshotLost,
    SnapshotRequested,
    TaskAttemptFailed,
    TaskCancelled,
    TaskCancelRequested,
    TaskRetried,
    TaskStarted,
    WorkspaceCreated,
    WorkspaceDisabled,
    WorkspaceInitFailed,
    WorkspaceInitialized,
    WorkspaceInitRetried,
)
from wvs.domain.states import SnapshotState, TaskKind, WorkspaceState
from wvs.domain.values import (
    Bystander,
    Bystanders,
    Certificate,
    CloneReport,
    FrozenProcesses,
    Member,
    Metadata,
    TaskError,
)

SNAPSHOT: Final = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
TASK: Final = UUID("01890a5d-ac97-7b1c-8d3e-0f1e2d3c4b5a")
SESSION: Final = UUID("01890a5d-ac98-7a00-9000-00000000002a")
VOLUME: Final = UUID("b3f1c0de-5a7e-4c11-9f00-0a1b2c3d4e5f")
TREE: Final = "01h455vb4qfcekt3fy3rpgykaf.7"

METADATA: Final = Metadata(
    occurred_at=datetime(2026, 11, 23, 19, 33, 7, 250_001, tzinfo=UTC),
    actor="cli:anna",
    request_id="req-1",
    idempotency_key="key-1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    causation="task_01h455vb4qfcekt3fy3rpgykaf",
)
ERROR: Final = TaskError(ErrorCode.CLONE_FAILED, "EIO while reading »a/ü«", "Look at the disk.", retryable=True)
REPORT: Final = CloneReport(
    engine="reflink",
    files=20_761,
    bytes=9_007_199_254_740_993,
    sockets=2,
    freeze_s=0.125,
    clone_s=1.5,
    total_s=2.25,
    notes=("2 sockets were skipped",),
)
CERTIFICATE: Final = Certificate(
    freeze=12,
    vacuous=False,
    members=(Member(SESSION, "boot-1/3", "syncfs ok"),),
    stamp_before="a1",
    stamp_after="a1",
    engine="reflink",
    frozen_at=datetime(2026, 11, 23, 19, 33, 5, tzinfo=UTC),
    resumed_at=datetime(2026, 11, 23, 19, 33, 6, 500_000, tzinfo=UTC),
)
FULL_CERTIFICATE: Final = replace(
    CERTIFICATE,
    members=(Member(SESSION, "boot-1/3", "syncfs ok", FrozenProcesses("cgroup", "wvs-sess_1", 7)),),
    bystanders=Bystanders(
        2, (Bystander(4711, "vim main.c", "build-3", ("working directory",)),), ("build-4: no look",)
    ),
)

SAMPLES: Final[tuple[Event, ...]] = (
    WorkspaceCreated("agent-7", {"team": "größer", "env/x": ""}, TASK, "tenant-1", VOLUME),
    WorkspaceInitialized(TASK, 1, TREE, "reflink", WorkspaceState.ACTIVE),
    WorkspaceInitFailed(TASK, 1, 3, ERROR, TREE),
    WorkspaceInitRetried(TASK, new_task=True),
    WorkspaceDisabled("Project ended."),
    SnapshotRequested(SNAPSHOT, TASK, "before the »big« change 🌍", {"run": "12"}),
    SnapshotCreated(SNAPSHOT, TASK, 7, TREE, REPORT, CERTIFICATE),
    SnapshotFailed(SNAPSHOT, TASK, 7, 4, ERROR, TREE),
    SnapshotLost(SNAPSHOT, TREE, "ENOENT"),
    SnapshotFound(SNAPSHOT, TREE, "It has 20761 files."),
    CurrentSetRequested(SNAPSHOT, TASK, reset=True),
    CurrentSetSkipped(SNAPSHOT, TASK, at_request=True),
    CurrentSet(SNAPSHOT, TASK, 8, TREE, "01h455vb4pex5vsknk084sn02q.1", 2, REPORT, CERTIFICATE),
    CurrentSetFailed(SNAPSHOT, TASK, 8, 4, ERROR, TREE),
    SnapshotDropRequested(SNAPSHOT, TASK),
    SnapshotDropped(SNAPSHOT, TASK, 9, TREE),
    SnapshotDropFailed(SNAPSHOT, TASK, 9, 6, ERROR),
    TaskStarted(TASK, TaskKind.SNAPSHOT_CREATE, 1, 7, "executor-1", TREE),
    TaskAttemptFailed(
        task_id=TASK,
        kind=TaskKind.SNAPSHOT_CREATE,
        attempt=1,
        fence=7,
        error=ERROR,
        tree=TREE,
        delay_s=0.613,
        next_attempt_at=datetime(2026, 11, 23, 19, 33, 7, 863_001, tzinfo=UTC),
        counted=True,
        touched=False,
    ),
    TaskRetried(TASK, TaskKind.SNAPSHOT_DROP, SNAPSHOT),
    TaskCancelRequested(TASK),
    TaskCancelled(
        task_id=TASK,
        kind=TaskKind.WORKSPACE_INIT,
        snapshot_id=SNAPSHOT,
        snapshot_state=SnapshotState.DROP_FAILED,
        workspace_state=WorkspaceState.INIT_FAILED,
        reason="cancelled on request",
        tree=TREE,
    ),
    SessionEvicted(SESSION, "It hangs."),
)

OPTIONAL_SAMPLES: Final[tuple[Event, ...]] = (
    SnapshotCreated(SNAPSHOT, TASK, 7, TREE, REPORT, FULL_CERTIFICATE),
    CurrentSet(SNAPSHOT, TASK, 8, TREE, "01h455vb4pex5vsknk084sn02q.1", 2, REPORT, FULL_CERTIFICATE),
)
"""Events with the optional fields that releases wrote later under the same name."""
