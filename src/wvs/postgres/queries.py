"""Named, described queries out of `db/queries/*.sql`.

    -- name: lane_claim
    -- What the query promises, in as many comment lines as it takes.
    select …  -- with $1, $2, … as PostgreSQL numbers them

aiosql would rewrite `:name` parameters and call with a dict for each execution; here the text in the file is the text
that is prepared. The name goes in front as a comment, so that `pg_stat_activity` and the server's log show it.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from wvs.postgres.sources import database_files

_NAME: Final = re.compile(r"^-- name:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_WORD: Final = re.compile(r"[a-z][a-z0-9_]*")


class InvalidQueryFile(Exception):
    """A file of queries breaks the format; the text names file and query."""


class Query(msgspec.Struct, frozen=True):
    """One query: its name, what it promises, and the text to execute."""

    name: str
    description: str
    sql: str


def load_queries(directory: Path) -> Mapping[str, Query]:
    """All queries below `directory` by name; raises `InvalidQueryFile`."""
    found: dict[str, Query] = {}
    for path in sorted(directory.glob("*.sql")):
        for query in _parse(path):
            if query.name in found:
                raise InvalidQueryFile(f"{path.name}: there is already a query {query.name}")
            found[query.name] = query
    return MappingProxyType(found)


@cache
def queries() -> Mapping[str, Query]:
    """The queries of this installation, read once."""
    return load_queries(database_files("queries"))


def sql(name: str) -> str:
    """The text of query `name`; raises `KeyError`. Meant for module constants: a wrong name fails at import."""
    return queries()[name].sql


def _parse(path: Path) -> list[Query]:
    head, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    if _without_comments(head):
        raise InvalidQueryFile(f"{path.name}: text before the first '-- name:' line")
    return [_query(path, name, body) for name, body in zip(parts[::2], parts[1::2], strict=True)]


def _query(path: Path, name: str, body: str) -> Query:
    if not _WORD.fullmatch(name):
        raise InvalidQueryFile(f"{path.name}: {name!r} is no name (lower case letters, digits, underscores)")
    lines = body.strip().splitlines()
    comment: list[str] = []
    while lines and lines[0].startswith("--"):
        comment.append(lines.pop(0).removeprefix("--").strip())
    text = "\n".join(lines).strip().rstrip(";").rstrip()
    if not any(comment):
        raise InvalidQueryFile(f"{path.name}: query {name} has no description")
    if not _without_comments(text):
        raise InvalidQueryFile(f"{path.name}: query {name} has no text")
    return Query(name=name, description=" ".join(comment).strip(), sql=f"/* {name} */ {text}")


def _without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines() if not line.lstrip().startswith("--")).strip()
