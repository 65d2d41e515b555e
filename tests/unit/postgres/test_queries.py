from pathlib import Path

import pytest

from wvs.postgres import queries as module
from wvs.postgres.queries import InvalidQueryFile, Query, compose, load_queries, queries, sql


def _write(directory: Path, text: str, name: str = "a.sql") -> Path:
    (directory / name).write_text(text)
    return directory


def test_a_query_has_a_name_a_description_and_the_text_as_it_stands(tmp_path: Path):
    found = load_queries(
        _write(
            tmp_path,
            "-- Queries of a room.\n\n-- name: one\n-- Says one,\n-- always.\n"
            "select 1 -- literally\nwhere $1 = '--x';\n\n"
            "-- name: two\n-- Says two.\nselect 2\n",
        )
    )
    assert found["one"] == Query(
        name="one", description="Says one, always.", sql="/* one */ select 1 -- literally\nwhere $1 = '--x'"
    )
    assert found["two"].sql == "/* two */ select 2"
    assert list(found) == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("select 1;\n-- name: a\n-- A.\nselect 1", "text before the first"),
        ("-- name: Not A Name\n-- A.\nselect 1", "is no name"),
        ("-- name: a\nselect 1", "query a has no description"),
        ("-- name: a\n--\nselect 1", "query a has no description"),
        ("-- name: a\n-- A.\n", "query a has no text"),
        ("-- name: a\n-- A.\n;\n-- name: b\n-- B.\nselect 1", "query a has no text"),
        ("-- name: a\n-- A.\nselect 1\n-- name: a\n-- A.\nselect 2", "already a query a"),
    ],
)
def test_a_file_that_breaks_the_format_is_refused_by_name(tmp_path: Path, text: str, complaint: str):
    with pytest.raises(InvalidQueryFile, match=complaint) as caught:
        load_queries(_write(tmp_path, text))
    assert "a.sql" in str(caught.value)


def test_a_name_is_unique_over_all_files(tmp_path: Path):
    _write(tmp_path, "-- name: a\n-- A.\nselect 1", "a.sql")
    _write(tmp_path, "-- name: a\n-- A.\nselect 1", "b.sql")
    with pytest.raises(InvalidQueryFile, match=r"b\.sql: there is already a query a"):
        load_queries(tmp_path)


def test_the_queries_of_this_program_load_and_an_unknown_name_fails():
    name = next(query.name for query in queries().values() if not query.is_fragment)
    assert sql(name).startswith(f"/* {name} */ ")
    with pytest.raises(KeyError):
        sql("no_such_query")


FRAGMENTS = """
-- fragment: row
-- A row, with a cast, a string and a slice that are no parameters.
SELECT t.a::text, 'x:y', (ARRAY[1, 2])[1:2]
-- fragment: rows
-- Rows.
FROM t
-- fragment: of_kind
-- Of a kind.
t.kind = :kind ORDER BY t.kind DESC
-- fragment: before
-- Older ones.
(t.id, t.kind) < (:before, :kind) ORDER BY t.id DESC, t.b
-- fragment: kept
-- Kept.
NOT t.gone
-- name: whole
-- Whole.
SELECT 1
"""


@pytest.fixture
def fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_queries(_write(tmp_path, FRAGMENTS))
    monkeypatch.setattr(module, "queries", lambda: found)


@pytest.mark.usefixtures("fragments")
def test_a_list_is_composed_of_fragments_with_its_parameters_numbered():
    composed = compose("list", ("row", "rows"), ("of_kind", "before", "kept"))
    assert composed.sql == (
        "/* list */ SELECT t.a::text, 'x:y', (ARRAY[1, 2])[1:2]\nFROM t\n"
        "WHERE t.kind = $1\n  AND (t.id, t.kind) < ($2, $1)\n  AND NOT t.gone\n"
        "ORDER BY t.kind DESC, t.id DESC, t.b LIMIT $3"
    )
    assert composed.parameters == ("kind", "before", "limit")


@pytest.mark.usefixtures("fragments")
def test_values_are_bound_in_the_order_of_the_parameters_and_none_may_be_missing():
    composed = compose("list", ("row", "rows"), ("of_kind", "before"))
    assert composed.values({"limit": 3, "kind": "k'; --", "before": 7, "unused": 1}) == ["k'; --", 7, 3]
    with pytest.raises(KeyError, match="before"):
        composed.values({"limit": 3, "kind": "k"})


@pytest.mark.usefixtures("fragments")
def test_a_fragment_is_not_a_query_and_a_query_is_not_a_fragment():
    with pytest.raises(KeyError, match="before is a fragment"):
        sql("before")
    with pytest.raises(KeyError, match="whole is a whole query"):
        compose("list", ("row", "rows"), ("whole",))
    with pytest.raises(KeyError, match="nothing"):
        compose("list", ("row", "rows"), ("nothing",))
