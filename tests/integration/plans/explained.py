"""Plans as Postgres executed them, and the faults of a plan."""

from collections.abc import Iterator
from typing import Any, Final, cast

import psycopg
from msgspec import Struct

EXECUTIONS: Final = 7
"""Postgres plans a prepared statement for its values five times; then it may switch to a generic plan."""


class Case(Struct, frozen=True):
    """A query with values. One step may touch at most `touched` rows and sort at most `sorted` rows.

    `query` is the text of a composed query; without it, `name` is the query's name.
    """

    name: str
    values: list[Any]
    touched: int
    sorted: int = 0
    query: str = ""


def faults_of(connection: psycopg.Connection, query: str, case: Case) -> list[str]:
    """The faults of a query's plans, as sentences."""
    faults: dict[str, None] = {}
    values = ", ".join(_literal(value) for value in case.values)
    _run(connection, f"PREPARE explained AS {query}")
    execute = f"EXECUTE explained ({values})" if values else "EXECUTE explained"
    for _ in range(EXECUTIONS):
        row = _run(connection, f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {execute}").fetchone()
        assert row is not None
        faults.update(dict.fromkeys(f"{case.name} ({values}): {fault}" for fault in faults_in(row[0][0]["Plan"], case)))
    _run(connection, "DEALLOCATE explained")
    return list(faults)


def faults_in(plan: dict[str, Any], case: Case) -> Iterator[str]:
    """The faults of one plan, as sentences."""
    for node in nodes_of(plan):
        kind, relation = node["Node Type"], node.get("Relation Name", "")
        loops = node["Actual Loops"]
        if kind == "Seq Scan" and not relation.startswith("pg_"):
            yield f"{kind} of {relation}"
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        if (touched := (node["Actual Rows"] + removed) * loops) > case.touched and loops:
            yield f"{kind} {node.get('Index Name', relation)} touches {touched} rows, more than {case.touched}"
        if kind in {"Sort", "Incremental Sort"}:
            given = sum(child["Actual Rows"] * child["Actual Loops"] for child in node["Plans"])
            if given > case.sorted:
                yield f"{kind} of {given} rows, more than {case.sorted}"


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan, and all nodes below it."""
    yield plan
    for child in cast("list[dict[str, Any]]", plan.get("Plans", [])):
        yield from nodes_of(child)


def _run(connection: psycopg.Connection, statement: str) -> psycopg.Cursor[Any]:
    return connection.execute(statement.encode())


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "ARRAY[" + ", ".join(_literal(item) for item in cast("list[Any]", value)) + "]::text[]"
    text = str(value).replace("'", "''")
    return f"'{text}'"
