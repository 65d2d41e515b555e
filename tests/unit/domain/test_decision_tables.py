"""Every pair of state and command does what its row in `tables/` says, and no pair is missing."""

from collections import defaultdict
from pathlib import Path
from typing import get_args

import pytest

from tests.unit.domain import decision_table, orders, situations
from tests.unit.domain.decision_table import ALL, Table, outcome, written
from wvs.domain.commands import Command
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState

_ROWS = {table.name: written(table.name) for table in ALL}
_CASES = [pytest.param(t, *pair, id=f"{t.name}: {pair[0]}: {pair[1]}") for t in ALL for pair in t.pairs()]


@pytest.mark.parametrize(("table", "situation", "order"), _CASES)
def test_each_pair_has_the_result_of_its_row(table: Table, situation: str, order: str) -> None:
    assert " ".join(outcome(table, situation, order).split()) == _ROWS[table.name].get((situation, order))


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_the_tables_hold_exactly_the_pairs_that_exist(table: Table) -> None:
    assert set(_ROWS[table.name]) == set(table.pairs())


def test_every_command_is_paired_with_every_state_of_a_workspace() -> None:
    commands = {command.__name__ for command in get_args(Command)}
    assert {name.split(",")[0] for name in orders.WORKSPACE} == commands
    assert _states_of(situations.WORKSPACE) == {"absent", *WorkspaceState}


def test_every_command_that_names_a_snapshot_is_paired_with_every_state_of_a_snapshot() -> None:
    named = {c.__name__ for c in get_args(Command) if "snapshot_id" in c.__struct_fields__} - {"CreateSnapshot"}
    assert {name.split(",")[0] for name in orders.SNAPSHOT} == named
    assert _states_of(situations.SNAPSHOT) == {"unknown", *SnapshotState}


def test_every_command_that_names_a_task_is_paired_with_every_state_of_every_kind() -> None:
    makes_its_own = {"CreateWorkspace", "RetryInit", "CreateSnapshot", "SetCurrent", "DropSnapshot"}
    named = {c.__name__ for c in get_args(Command) if "task_id" in c.__struct_fields__} - makes_its_own
    assert {name.split(",")[0] for name in orders.TASK} == named
    met: defaultdict[str, set[str]] = defaultdict(set)
    for name in situations.TASK:
        state, _, kind = name.removesuffix(")").partition(" (")
        met[kind].add(state.split(",")[0])
    assert met == {"": {"unknown"}, **{kind: set(TaskState) for kind in TaskKind}}


def test_an_order_gives_the_command_that_it_is_named_after() -> None:
    case = situations.ready()
    assert {name: type(order(case)).__name__ for name, order in orders.ALL.items()} == {
        name: name.split(",")[0] for name in orders.ALL
    }


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_a_situation_is_in_the_state_that_it_is_named_after(table: Table) -> None:
    named = {name: name.split(",")[0].split(" (")[0] for name in table.situations}
    assert {name: _state(table, name) for name in table.situations} == named


def test_a_pair_written_twice_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.txt").write_text("# comment\n[s]\nRetryTask | nothing\nRetryTask | nothing\n")
    monkeypatch.setattr(decision_table, "_TABLES", tmp_path)
    with pytest.raises(AssertionError, match="twice"):
        written("t")


def _state(table: Table, situation: str) -> str:
    case = table.situations[situation]()
    workspace = case.story.workspace_or_none
    if workspace is None:
        return "absent"
    match table.name:
        case "workspace":
            return workspace.state
        case "snapshot":
            return workspace.snapshots[case.snapshot].state if case.snapshot in workspace.snapshots else "unknown"
        case _:
            return workspace.task_state(case.task) or "unknown"


def _states_of(built: dict[str, situations.Build]) -> set[str]:
    return {name.split(",")[0] for name in built}
