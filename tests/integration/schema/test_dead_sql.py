"""No SQL is dead: every query and every function is used, and unused functions are listed to be dropped."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping

import pytest
from tests.integration.eventlog.commanding import write_path
from tests.integration.projections.past import lively_past
from tools.schema.functions import texts_in_files
from tools.schema.writing import DATABASE_FILES

from wvs.eventlog.codec import EventMapper
from wvs.postgres.pool import Pool
from wvs.postgres.queries import queries
from wvs.projections.rebuild import rebuild
from wvs.projections.verify import verify

_NAMES = re.compile(r"\bwvs(?:_fresh)?\.(\w+)|\bpg_temp\.(\w+)")
_COMMENT = re.compile(r"--[^\n]*")

USED_AT_IMPORT = """
import importlib, pkgutil, sys
import wvs.postgres.queries as module

class Recording(dict):
    used = set()
    def __getitem__(self, name):
        self.used.add(name)
        return super().__getitem__(name)

found = Recording(module.queries())
module.queries = lambda: found
import wvs
for entry in pkgutil.walk_packages(wvs.__path__, "wvs."):
    importlib.import_module(entry.name)
sys.stdout.write("\\n".join(sorted(found.used)))
"""


@pytest.fixture(scope="module")
def used_queries() -> set[str]:
    """The queries that the program's modules look up when they are imported."""
    done = subprocess.run(
        [sys.executable, "-c", USED_AT_IMPORT], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


def retired(kind: str) -> set[str]:
    entries = tomllib.loads((DATABASE_FILES / "retired.toml").read_text())["retired"]
    objects = [entry["object"].split(" ", 1) for entry in entries]
    return {name.removeprefix("wvs.") for word, name in objects if word == kind}


def names_in(text: str) -> set[str]:
    """The objects of our schemas that the SQL in `text` names outside its comments."""
    return {one or other for one, other in _NAMES.findall(_COMMENT.sub("", text))}


def functions_used(functions: Mapping[str, str], roots: list[str]) -> set[str]:
    """The functions that the roots name, directly or through other functions."""
    used: set[str] = set()
    waiting = set[str]().union(*map(names_in, roots)) & functions.keys()
    while waiting:
        used |= waiting
        waiting = set[str]().union(*(names_in(functions[name]) for name in waiting)) & functions.keys() - used
    return used


def roots(used_queries: set[str]) -> list[str]:
    triggers = [line for line in (DATABASE_FILES / "schema.sql").read_text().splitlines() if "CREATE TRIGGER" in line]
    return [queries()[name].sql for name in used_queries] + triggers


def test_every_query_is_used(used_queries: set[str]):
    assert len(used_queries) > 50, "the test did not record the queries that modules look up"
    assert sorted(queries().keys() - used_queries) == []


def test_every_function_is_used_or_listed_to_be_dropped(used_queries: set[str]):
    functions = texts_in_files()
    assert functions.keys() - functions_used(functions, roots(used_queries)) == retired("function")


def test_an_unused_function_is_found_also_if_it_calls_itself_or_is_named_in_a_comment(used_queries: set[str]):
    functions = {**texts_in_files(), "planted": "-- One.\nSELECT wvs.planted() -- wvs.planted"}
    texts = [*roots(used_queries), "SELECT 1 -- wvs.planted()"]
    assert "planted" not in functions_used(functions, texts)
    assert "planted" in functions_used(functions, [*texts, "SELECT wvs.planted()"])


async def test_this_release_works_without_retired_objects(pool: Pool, database_url: str):
    """Every listed object exists. Without them a whole past can be written, replayed and verified."""
    for name in retired("function"):
        await pool.execute(f"DROP FUNCTION wvs.{name}")
    for table_and_column in retired("column"):
        table, column = table_and_column.split(".")
        await pool.execute(f"ALTER TABLE wvs.{table} DROP COLUMN {column}")
    path = write_path(pool)
    await lively_past(path, "one")
    await path.close()
    assert await pool.fetchval("SELECT count(*) FROM wvs.trees WHERE state <> 'intended'") > 0
    assert (await verify(database_url, EventMapper(), _silent)).equal
    await rebuild(database_url, EventMapper(), _silent)
    assert (await verify(database_url, EventMapper(), _silent)).equal


def _silent(_phase: str, _reached: int, _end: int) -> None:
    pass


def test_each_retired_object_has_its_migration_and_its_replacement():
    entries = tomllib.loads((DATABASE_FILES / "retired.toml").read_text())["retired"]
    migrations = {path.name.partition("_")[0] for path in (DATABASE_FILES / "migrations").glob("*.sql")}
    for entry in entries:
        assert entry.keys() == {"object", "since", "instead", "drop"}
        assert entry["since"] in migrations
