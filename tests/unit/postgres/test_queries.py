from pathlib import Path

import pytest

from wvs.postgres.queries import InvalidQueryFile, Query, load_queries, queries, sql


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
    name = next(iter(queries()))
    assert sql(name).startswith(f"/* {name} */ ")
    with pytest.raises(KeyError):
        sql("no_such_query")
