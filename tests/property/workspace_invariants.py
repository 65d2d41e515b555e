"""The invariants of a workspace after every step, whatever the command was."""

from collections.abc import Sequence

from tests.property.lane_model import Lane
from tests.property.model_of_outcomes import Model
from wvs.domain.events import Event, TaskStarted
from wvs.domain.states import RETRYABLE_STATES, SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.domain.workspace import Workspace


def the_workspace_is_what_the_model_says(workspace: Workspace, model: Model) -> None:
    assert (workspace.state, workspace.current, workspace.epoch) == (model.state, model.current, model.epoch)
    assert (workspace.fence, workspace.running) == (model.fence, model.running())
    assert list(workspace.queued) == model.lane
    assert set(workspace.movers) == set(model.movers())
    assert {s: snapshot.state for s, snapshot in workspace.snapshots.items()} == {
        s: snapshot["state"] for s, snapshot in model.snapshots.items()
    }
    assert {t: workspace.task_state(t) for t in model.tasks} == {t: task["state"] for t, task in model.tasks.items()}
    assert {t: task.attempt for t, task in workspace.tasks.items()} == {
        t: model.tasks[t]["attempt"] for t in workspace.tasks
    }


def what_must_always_hold(workspace: Workspace, log: Sequence[Event]) -> None:
    if workspace.current is not None:
        damaged = (SnapshotState.LOST,)
        if workspace.state is WorkspaceState.DISABLED:  # what is lost may be dropped there, although it is current
            damaged = (SnapshotState.LOST, SnapshotState.DROPPING, SnapshotState.DROP_FAILED, SnapshotState.DROPPED)
        assert workspace.snapshots[workspace.current].state in (SnapshotState.READY, *damaged)
    running = [task.id for task in workspace.tasks.values() if task.state is TaskState.RUNNING]
    assert running == ([] if workspace.running is None else [workspace.running])
    fences = [event.fence for event in log if isinstance(event, TaskStarted)]
    assert fences == sorted(set(fences)), "fences only grow"
    assert workspace.version == len(log)
    assert not set(workspace.tasks) & set(workspace.ended)


def references_are_those_of_the_tasks(workspace: Workspace) -> None:
    for snapshot in workspace.snapshots.values():
        referring = [task for task in workspace.tasks.values() if task.snapshot_id == snapshot.id]
        assert set(snapshot.tasks) == {task.id for task in referring if task.state in RETRYABLE_STATES}
        at_work = {task.kind for task in referring if task.state in (TaskState.QUEUED, TaskState.RUNNING)}
        assert (TaskKind.SNAPSHOT_CREATE in at_work) == (snapshot.state is SnapshotState.CREATING)
        assert (TaskKind.SNAPSHOT_DROP in at_work) == (snapshot.state is SnapshotState.DROPPING)


def the_queue_knows_what_the_workspace_knows(workspace: Workspace, lane: Lane) -> None:
    assert lane.waiting == list(workspace.queued)
    assert lane.running == workspace.running
    assert lane.link_epoch == workspace.epoch
