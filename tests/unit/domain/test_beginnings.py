"""Creating a workspace and a snapshot, and retrying an initialisation."""

import pytest

from tests.unit.domain import situations
from tests.unit.domain.story import CERTIFICATE, FINAL, NOBODY, REPORT, Story, only, tree_of
from wvs.domain.commands import (
    CancelTask,
    CreateSnapshot,
    CreateWorkspace,
    DisableWorkspace,
    EvictSession,
    FinishDrop,
    RetryInit,
    RetryTask,
)
from wvs.domain.errors import ErrorCode
from wvs.domain.events import (
    SessionEvicted,
    SnapshotCreated,
    SnapshotRequested,
    TaskCancelled,
    TaskStarted,
    WorkspaceCreated,
    WorkspaceInitFailed,
    WorkspaceInitialized,
    WorkspaceInitRetried,
)
from wvs.domain.states import TaskKind, TaskState, WorkspaceState


@pytest.mark.parametrize("name", ["a", "0", "agent-7", "a--b", "x" * 63])
def test_a_good_name_is_accepted(name: str) -> None:
    story = Story()
    task_id = story.new_id()
    created = WorkspaceCreated(name, {"team": "a"}, task_id, tenant="default", volume_id=None)
    assert story.do(CreateWorkspace(name, {"team": "a"}, task_id)) == [created]
    assert story.workspace.queued == (task_id,)


def test_a_workspace_is_created_for_the_tenant_and_the_volume_that_the_command_names() -> None:
    story = Story()
    task_id, volume_id = story.new_id(), story.new_id()
    command = CreateWorkspace("a", {}, task_id, tenant="tenant-1", volume_id=volume_id)
    assert story.do(command) == [WorkspaceCreated("a", {}, task_id, "tenant-1", volume_id)]


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a b", "a\n", "a\0", "é", "٣", "x" * 64]
)
def test_a_bad_name_is_refused(name: str) -> None:
    refused = Story().refusal(CreateWorkspace(name, {}, NOBODY))
    assert refused.code is ErrorCode.INVALID_REQUEST
    assert len(refused.detail) < 500


@pytest.mark.parametrize("key", ["", "-a", "a-", "a b", "a\n", "a\0b", "é", "x" * 64])
def test_a_bad_label_key_is_refused(key: str) -> None:
    story = situations.active().story
    labels = {"fine": "v", key: "v"}
    assert Story().refusal(CreateWorkspace("a", labels, NOBODY)).code is ErrorCode.INVALID_REQUEST
    assert story.refusal(CreateSnapshot(NOBODY, NOBODY, None, labels)).code is ErrorCode.INVALID_REQUEST


def test_a_snapshot_keeps_its_message_and_labels() -> None:
    story = situations.active().story
    snapshot_id, task_id = story.new_id(), story.new_id()
    labels = {"Team/x_y.z": "é"}
    assert story.do(CreateSnapshot(snapshot_id, task_id, "before the refactoring", labels)) == [
        SnapshotRequested(snapshot_id, task_id, "before the refactoring", labels)
    ]


def test_a_finished_snapshot_carries_its_tree_report_and_certificate() -> None:
    case = situations.create_running()
    fence = case.story.workspace.fence
    tree = tree_of(case.task, fence)
    assert case.story.finish(case.task) == [SnapshotCreated(case.snapshot, case.task, fence, tree, REPORT, CERTIFICATE)]
    assert case.story.snapshot(case.snapshot).tree == tree


def test_initialisation_creates_the_live_tree_and_epoch_one() -> None:
    story = Story()
    task_id = story.create()
    assert only(story.start(task_id), TaskStarted).fence == 1
    assert story.finish(task_id) == [
        WorkspaceInitialized(task_id, 1, tree_of(task_id, 1), "copy", WorkspaceState.ACTIVE)
    ]
    workspace = story.workspace
    assert (workspace.state, workspace.epoch, workspace.current) == (WorkspaceState.ACTIVE, 1, None)


def test_a_failed_initialisation_keeps_its_error() -> None:
    story = Story()
    task_id = story.create()
    story.start(task_id)
    assert story.fail(task_id) == [WorkspaceInitFailed(task_id, 1, 1, FINAL, tree_of(task_id, 1))]


@pytest.mark.parametrize("command", [RetryTask, lambda _: RetryInit(NOBODY)])
def test_retrying_the_init_task_is_the_same_as_retrying_the_init(command) -> None:
    story = Story()
    task_id = story.create()
    story.run_to_failure(task_id)
    assert story.do(command(task_id)) == [WorkspaceInitRetried(task_id, new_task=False)]
    assert story.workspace.state is WorkspaceState.INITIALIZING
    story.start(task_id)
    story.finish(task_id)
    assert story.workspace.state is WorkspaceState.ACTIVE


@pytest.mark.parametrize("abandoned_while", ["queued", "failed"])
def test_a_retry_after_an_abandoned_init_creates_a_new_task(abandoned_while: str) -> None:
    story = Story()
    first, second = story.create(), story.new_id()
    if abandoned_while == "failed":
        story.run_to_failure(first)
    assert only(story.do(CancelTask(first)), TaskCancelled).kind is TaskKind.WORKSPACE_INIT
    assert story.workspace.state is WorkspaceState.INIT_FAILED
    assert story.do(RetryInit(second)) == [WorkspaceInitRetried(second, new_task=True)]
    assert story.workspace.task_state(first) is TaskState.CANCELLED
    story.start(second)
    story.finish(second)
    assert story.workspace.state is WorkspaceState.ACTIVE
    assert story.workspace.epoch == 1


def test_a_refusal_by_a_workspace_that_is_not_active_names_its_state() -> None:
    story = Story()
    story.create()
    refused = story.refusal(CreateSnapshot(NOBODY, NOBODY, None, {}))
    assert refused.code is ErrorCode.WORKSPACE_NOT_ACTIVE
    assert refused.fields == {"state": WorkspaceState.INITIALIZING}


def test_an_eviction_is_recorded_with_its_reason_and_changes_no_state() -> None:
    story = situations.active().story
    before = story.workspace
    assert story.do(EvictSession(NOBODY, "hung")) == [SessionEvicted(NOBODY, "hung")]
    assert story.workspace.version == before.version + 1
    assert story.workspace.queued == before.queued


def test_a_finish_that_does_not_fit_the_kind_of_the_task_is_refused_by_name() -> None:
    case = situations.create_running()
    refused = case.story.refusal(FinishDrop(case.task, case.story.workspace.fence))
    assert refused.code is ErrorCode.INVALID_REQUEST
    assert "FinishDrop" in refused.detail


def test_a_disabled_workspace_that_never_was_active_stays_disabled() -> None:
    story = Story()
    story.create()
    story.do(DisableWorkspace())
    assert story.refusal(RetryInit(NOBODY)).code is ErrorCode.WORKSPACE_DISABLED
