"""Every claim and list query, explained on big tables: each uses an index, so its cost does not grow with the table.

`make plans` creates 1,000,000 tasks, and 100,000 snapshots in one workspace; `make test` creates a twentieth of that.
"""

from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
import pytest
from tests.conftest import private_database
from tests.integration.plans.compositions import compositions
from tests.integration.plans.explained import Case, faults_in, faults_of
from tests.integration.plans.population import BIG, LANES, Size, populate, uuid_of

from wvs.domain.policy import RETRY
from wvs.domain.states import SnapshotState, TaskKind, TaskState, WorkspaceState
from wvs.eventlog.reading.filtered_log import EventFilter, query_of
from wvs.postgres.queries import Composed, sql
from wvs.projections.listings import (
    NEWEST,
    SnapshotFilter,
    TaskFilter,
    WorkspaceFilter,
    snapshot_query,
    task_query,
    workspace_query,
)

LIMIT: Final = 51
PAGE: Final = LIMIT + 1
# By workspace and kind, one page of each state is read and merged. For kept snapshots the planner may choose one of two
# indexes; in one of them dropped snapshots are among the others.
FACTORS: Final = {"tasks_by_workspace_kind": len(TaskState), "snapshots_by_kept": 2}

SOME_STATES: Final = (SnapshotState.READY, SnapshotState.DROPPED, SnapshotState.LOST)

BIG_ID: Final = UUID(BIG)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Size(50_000, 5_000), id="share"),
        pytest.param(Size(1_000_000, 100_000), id="whole", marks=pytest.mark.campaign),
    ],
)
def populated(
    request: pytest.FixtureRequest, admin_url: str, template_database: str
) -> Iterator[tuple[psycopg.Connection, Size]]:
    size: Size = request.param
    with private_database(admin_url, template_database) as url:
        populate(url, size)
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection, size


def list_cases(size: Size) -> Iterator[Case]:
    """Every list with every combination of filters, from the first page and from a middle one."""
    for before in (str(NEWEST), uuid_of(size.workspaces // 2)):
        for wanted in (
            WorkspaceFilter(),
            *(WorkspaceFilter(state) for state in WorkspaceState),
            WorkspaceFilter(name="again"),
            *(WorkspaceFilter(state, "again") for state in WorkspaceState),
            WorkspaceFilter(WorkspaceState.ACTIVE, "w4"),
        ):
            yield listed(workspace_query(wanted), before)
    for before in (str(NEWEST), uuid_of(size.snapshots // 2)):
        for labels in ((), ("run=7",), ("kind=nightly",), ("kind=nightly", "run=7"), ("no=such",)):
            for state in (None, *(SOME_STATES if labels else SnapshotState)):
                for deleted in (False, True):
                    wanted = SnapshotFilter(BIG_ID, state, labels, deleted)
                    yield by_label(listed(snapshot_query(wanted), before), wanted, size)
    for before in (str(NEWEST), uuid_of(size.tasks // 2)):
        for workspace in (None, BIG_ID):
            for state in (None, *TaskState):
                for kind in (None, *TaskKind):
                    yield listed(task_query(TaskFilter(workspace, state, kind)), before)


def by_label(case: Case, wanted: SnapshotFilter, size: Size) -> Case:
    """One label has an index. All other filters are checked on each snapshot with that label."""
    if not wanted.labels or (len(wanted.labels) == 1 and wanted.state is None and wanted.include_deleted):
        return case
    return msgspec.structs.replace(case, touched=size.snapshots)


def listed(query: tuple[Composed, dict[str, Any]], before: str) -> Case:
    composed, values = query
    name = composed.sql.split()[1]
    touched = PAGE * FACTORS.get(name, 1)
    return Case(
        name,
        composed.values({**values, "before": before, "limit": LIMIT}),
        touched,
        sorted=touched,
        query=composed.sql,
    )


def other_cases(size: Size) -> Iterator[Case]:
    """The other queries of readers, followers and upkeep that need few of many rows."""
    last, task = size.events, uuid_of(size.tasks // 2)
    yield Case("workspace_by_id", [uuid_of(4)], 1)
    yield Case("workspace_by_name", ["w4"], 1)
    yield Case("workspace_by_name", ["again"], 1)
    yield Case("snapshot_by_id", [BIG, uuid_of(4)], 1)
    yield Case("task_by_id", [task], 1)
    yield Case("task_workspace", [task], 1)
    yield Case("tasks_final_among", ["{" + ",".join(uuid_of(n) for n in range(1, 200)) + "}"], 200)
    yield Case("log_events_between", [last // 2, last, LIMIT], LIMIT)
    yield Case("log_max_position", [], 1)
    for until in (last // 2, last, 2 * last):
        yield Case("log_last_committed", [until], 1)
    yield Case("stream_events_after", [BIG, last // 4, LIMIT], LIMIT)
    yield Case("workspace_version_at", [BIG, last // 2], 40)
    yield Case("workspace_events_between", [BIG, last // 4, last, LIMIT], LIMIT)
    yield Case("workspace_event", [BIG, last // 4], 1)
    yield from audit_cases(size)
    yield from history_cases(size)
    yield Case("swept_workspaces", [uuid_of(2), LIMIT], LIMIT)
    yield Case("idempotent_answer", ["anonymous createSnapshot", "k7"], 1)


def audit_cases(size: Size) -> Iterator[Case]:
    """The scans of the audit's filters: common, rare and absent values, from the first page and from a middle one."""
    last, task = size.events, UUID(uuid_of(size.events // 16))
    for after in (0, last // 2):
        for topic in ("task.started.v1", "workspace.initialized.v1", "session.evicted.v1"):
            yield walked(EventFilter(topic=topic), after, last, sorted=LIMIT)
            yield walked(EventFilter(workspace_id=BIG_ID, topic=topic), after // 2, last, sorted=LIMIT)
        for actor in ("a", "rare", "nobody"):
            yield walked(EventFilter(actor=actor), after, last, sorted=LIMIT)
            yield walked(EventFilter(workspace_id=BIG_ID, actor=actor), after // 2, last, sorted=LIMIT)
        yield walked(EventFilter(), after, last)
        yield walked(EventFilter(task_id=task), after, last)
    for query in ("position_before", "position_until"):
        yield Case(query, ["2026-01-02T00:00:00Z"], 1)


def walked(wanted: EventFilter, after: int, upto: int, **bounds: int) -> Case:
    composed = query_of(wanted)
    values = {**msgspec.structs.asdict(wanted), "after": after, "upto": upto, "limit": LIMIT}
    return Case(composed.sql.split()[1], composed.values(values), LIMIT, query=composed.sql, **bounds)


def history_cases(size: Size) -> Iterator[Case]:
    """A workspace as it was, early and late: a page of each list, and the few events of its rows."""
    rows, asked = LIMIT * 8, ["snapshot.requested.v1", "workspace.initialized.v1", "session.evicted.v1"]
    for version in (4, size.events // 4, size.events // 2):
        yield Case("history_place", [BIG, version], 1)
        yield Case("history_of_workspace", [BIG, version, ["workspace.initialized.v1"], ["current.set.v1"]], rows, rows)
        yield Case("history_snapshot_ids", [BIG, version, asked, LIMIT], 3 * LIMIT, sorted=3 * LIMIT)
        yield Case("history_task_ids", [BIG, version, asked, LIMIT, ["current.set_skipped.v1"]], rows, sorted=rows)
        ids = "{" + ",".join(uuid_of(n) for n in range(version // 8, version // 8 + LIMIT)) + "}"
        for name in ("history_of_snapshots", "history_of_tasks"):
            yield Case(name, [version, ids], rows, sorted=rows)
    yield Case("workspace_version_when", [BIG, "2026-01-02T00:00:00Z"], 1)


def test_every_list_query_walks_an_index_and_stops_at_its_page(populated: tuple[psycopg.Connection, Size]) -> None:
    connection, size = populated
    cases = list(list_cases(size))
    explained = {case.query for case in cases} | {case.query for case in audit_cases(size) if case.query}
    assert {composed.sql for composed in compositions()} == explained
    faults = [fault for case in cases for fault in case_faults(connection, case)]
    assert not faults, summary(faults)


def test_every_other_query_of_few_rows_touches_few(populated: tuple[psycopg.Connection, Size]) -> None:
    connection, size = populated
    faults = [
        fault for case in other_cases(size) for fault in faults_of(connection, case.query or sql(case.name), case)
    ]
    assert not faults, summary(faults)


def test_claims_and_renewals_walk_indexes(populated: tuple[psycopg.Connection, Size]) -> None:
    connection, _ = populated
    plans = _Plans(connection)
    deadlines = msgspec.json.encode({kind: policy.deadline_s for kind, policy in RETRY.items()}).decode()
    beginning = "'0001-01-01 00:00:00+00'"
    for _ in range(8):  # after the fifth execution, Postgres considers a generic plan
        with connection.transaction(force_rollback=True):
            claim = f"SELECT fence, workspace_id, task_id FROM wvs.claim_task('e', 30, '{deadlines}', {beginning})"
            row = connection.execute(claim.encode()).fetchone()
            assert row is not None
            fence, workspace, task = row
            renew = f"SELECT wvs.renew_lease('{workspace}', {fence}, '{task}', 30, '{{\"phase\": \"clone\"}}')"
            assert connection.execute(renew.encode()).fetchone() == ("go_on",)
            connection.execute(b"SELECT * FROM wvs.reap_lanes()")
    seen = plans.statements()
    for table in ("wvs.lanes", "wvs.queue"):
        assert any(table in statement for statement, _ in seen)
    case = Case("claim", [], touched=LANES // 10)
    faults = {f"{statement}: {fault}" for statement, plan in seen for fault in faults_in(plan, case)}
    assert not faults, summary(sorted(faults))


def case_faults(connection: psycopg.Connection, case: Case) -> list[str]:
    return faults_of(connection, case.query or sql(case.name), case)


def summary(faults: list[str]) -> str:
    """An example of each fault of each query."""
    examples = {(fault.split()[0], fault.rpartition(": ")[2].split(" touches ")[0]): fault for fault in faults}
    return "\n".join([f"{len(faults)} faults", *examples.values()])


class _Plans:
    """The plans of statements inside functions, which auto_explain sends to the client as notices."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._seen: list[tuple[str, dict[str, Any]]] = []
        try:
            connection.execute("LOAD 'auto_explain'")
        except psycopg.Error as error:
            pytest.skip(f"the server does not allow this role to see plans inside functions: {error}")
        for setting in (
            "client_min_messages = log",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
            "auto_explain.log_analyze = on",
            "auto_explain.log_timing = off",
            "auto_explain.log_format = json",
        ):
            connection.execute(f"SET {setting}".encode())
        connection.add_notice_handler(self._on_notice)

    def statements(self) -> list[tuple[str, dict[str, Any]]]:
        return self._seen

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            explained = msgspec.json.decode(text[text.index("{") :])
            self._seen.append((explained["Query Text"].strip()[:80], explained["Plan"]))
