"""Reads the decision tables of `tables/*.txt`, and executes one of their pairs.

A table has a heading `[situation]` for each block and under it one row for each command: its name, then the events it
causes (`nothing` for a repetition) or the code that refuses it, then every state that changed.
"""

from pathlib import Path
from typing import Final

from msgspec import Struct

from tests.unit.domain import orders, situations
from tests.unit.domain.orders import Order
from tests.unit.domain.situations import Build, Situation
from wvs.domain.errors import Refused

_TABLES: Final = Path(__file__).with_name("tables")


class Table(Struct, frozen=True):
    """The pairs that a table must have."""

    name: str
    situations: dict[str, Build]
    orders: dict[str, Order]

    def pairs(self) -> list[tuple[str, str]]:
        return [(situation, order) for situation in self.situations for order in self.orders]


ALL: Final = (
    Table("workspace", situations.WORKSPACE, orders.WORKSPACE),
    Table("snapshot", situations.SNAPSHOT, orders.SNAPSHOT),
    Table("task", situations.TASK, orders.TASK),
)

Rows = dict[tuple[str, str], str]


def written(name: str) -> Rows:
    """The rows of a table as written; a pair that occurs twice is an error."""
    rows: Rows = {}
    situation = ""
    for line in (_TABLES / f"{name}.txt").read_text().splitlines():
        if line.startswith("["):
            situation = line.strip("[]")
        elif line and not line.startswith("#"):
            order, _, outcome = line.partition(" | ")
            pair = (situation, order.strip())
            assert pair not in rows, f"{pair} is written twice"
            rows[pair] = " ".join(outcome.split())
    return rows


def outcome(table: Table, situation: str, order: str) -> str:
    """The domain's result for this pair, in the notation of the table."""
    case = table.situations[situation]()
    before = _states(case)
    try:
        events = case.story.do(table.orders[order](case))
    except Refused as refused:
        return f"refused {refused.code}"
    after = _states(case)
    changes = ", ".join(f"{what} {before[what]} -> {after[what]}" for what in after if before[what] != after[what])
    names = " + ".join(type(event).__name__ for event in events) or "nothing"
    return f"{names} | {changes}" if changes else names


def _states(case: Situation) -> dict[str, str]:
    """The states of the workspace and of the subject, and which snapshot is current."""
    workspace = case.story.workspace_or_none
    if workspace is None:
        return {"workspace": "absent", "snapshot": "none", "task": "none", "current": "none"}
    snapshot = workspace.snapshots.get(case.snapshot)
    return {
        "workspace": workspace.state,
        "snapshot": "none" if snapshot is None else snapshot.state,
        "task": workspace.task_state(case.task) or "none",
        "current": {None: "none", case.snapshot: "it"}.get(workspace.current, "another"),
    }
