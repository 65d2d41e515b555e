"""The transition tables are those of the design, and the page that draws them shows what really happens."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.domain import decision_table, situations
from tests.unit.domain.story import Story
from wvs.domain import states
from wvs.domain.errors import Refused
from wvs.domain.states import IllegalStepError, SnapshotState, TaskState, WorkspaceState, step
from wvs.domain.workspace import Workspace

_DOCS = Path(__file__).resolve().parents[3] / "docs"


def _load_docs_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_state_machines", _DOCS / "state_machines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drawn = _load_docs_script()


def test_workspace_steps_are_those_of_the_design() -> None:
    assert _words(states.WORKSPACE_STEPS) == {
        "initializing": {"active", "init_failed", "disabled"},
        "active": {"disabled"},
        "init_failed": {"initializing", "disabled"},
        "disabled": set(),
    }


def test_snapshot_steps_are_those_of_the_design() -> None:
    assert _words(states.SNAPSHOT_STEPS) == {
        "creating": {"ready", "failed"},
        "ready": {"dropping", "lost"},
        "failed": {"creating", "dropping"},
        "dropping": {"dropped", "drop_failed", "ready"},
        "drop_failed": {"dropping"},
        "dropped": set(),
        "lost": {"dropping", "ready"},
    }


def test_task_steps_are_those_of_the_design() -> None:
    assert _words(states.TASK_STEPS) == {
        "queued": {"running", "cancelled"},
        "running": {"succeeded", "failed", "queued", "cancelled"},
        "failed": {"queued", "cancelled"},
        "succeeded": set(),
        "cancelled": set(),
    }


def test_retryable_means_queued_running_or_failed() -> None:
    assert {"queued", "running", "failed"} == states.RETRYABLE_STATES


@pytest.mark.parametrize("table", [states.WORKSPACE_STEPS, states.SNAPSHOT_STEPS, states.TASK_STEPS])
def test_a_step_that_is_in_no_table_raises(table) -> None:
    for now, thens in table.items():
        for then in table:
            if then in thens:
                assert step(table, now, then) is then
            else:
                with pytest.raises(IllegalStepError, match=f"{now} -> {then} is not in the table"):
                    step(table, now, then)


def test_the_page_is_generated_from_the_tables() -> None:
    assert (_DOCS / "state-machines.md").read_text() == drawn.page(), "run make docs"


def test_a_step_without_a_caption_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    uncaptioned = {edge: events for edge, events in drawn.TASK.items() if edge != ("queued", "running")}
    monkeypatch.setattr(drawn, "TASK", uncaptioned)
    with pytest.raises(ValueError, match=r"Task: captions and table differ in .*queued"):
        drawn.page()


def test_every_arrow_occurs_by_exactly_the_events_of_its_caption() -> None:
    captions = {"workspace": drawn.WORKSPACE, "snapshot": drawn.SNAPSHOT, "task": drawn.TASK}
    assert _observed() == {
        (machine, now, then, event)
        for machine, arrows in captions.items()
        for (now, then), events in arrows.items()
        for event in events
    }


def _words(table) -> dict[str, set[str]]:
    return {str(now): {str(then) for then in thens} for now, thens in table.items()}


def _observed() -> set[tuple[str, str, str, str]]:
    """The steps of every pair of the decision tables, and of a `current_set` that finds itself done when it runs."""
    seen: set[tuple[str, str, str, str]] = set()
    for table in decision_table.ALL:
        for situation, order in table.pairs():
            case = table.situations[situation]()
            try:
                case.story.do(table.orders[order](case))
            except Refused:
                continue
            seen |= _steps(case.story)
    return seen | _steps(_skipped_at_execution())


def _skipped_at_execution() -> Story:
    case = situations.set_queued()
    second = case.story.request_current(case.snapshot)
    situations.succeeded(case)
    case.story.start(second)
    return case.story


def _steps(story: Story) -> set[tuple[str, str, str, str]]:
    found: set[tuple[str, str, str, str]] = set()
    for before, event, after in story.path:
        was, now = _all_states(before), _all_states(after)
        name = type(event).__name__
        found |= {
            (key[0], str(was.get(key, drawn.BIRTH)), str(now[key]), name) for key in now if was.get(key) != now[key]
        }
    return found


def _all_states(workspace: Workspace | None) -> dict[tuple[str, object], WorkspaceState | SnapshotState | TaskState]:
    if workspace is None:
        return {}
    tasks = {t: task.state for t, task in workspace.tasks.items()} | dict(workspace.ended.items())
    return {
        ("workspace", workspace.id): workspace.state,
        **{("snapshot", s): snapshot.state for s, snapshot in workspace.snapshots.items()},
        **{("task", t): state for t, state in tasks.items()},
    }
