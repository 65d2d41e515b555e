"""Named, described queries out of `db/queries/*.sql`, and lists composed of the fragments there.

    -- name: lane_claim
    -- What the query promises, in as many comment lines as it takes.
    select …  -- with $1, $2, … as PostgreSQL numbers them

    -- fragment: task_state_before
    -- Which rows pass, and in which order their index has them.
    (t.state, t.id) < (:state, :before) ORDER BY t.state DESC, t.id DESC

aiosql would rewrite `:name` parameters and call with a dict for each execution; here the text in the file is the text
that is prepared. The name goes in front as a comment, so that `pg_stat_activity` and the server's log show it. Only the
parameters of fragments have names: `compose` numbers them once, when it puts fragments together.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from wvs.postgres.sources import database_files

_HEAD: Final = re.compile(r"^-- (name|fragment):[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_WORD: Final = re.compile(r"[a-z][a-z0-9_]*")
_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z][a-z0-9_]*)")
_ORDER: Final = "ORDER BY"


class InvalidQueryFile(Exception):
    """A file of queries breaks the format; the text names file and query."""


class Query(msgspec.Struct, frozen=True):
    """One query or fragment: its name, what it promises, and its text."""

    name: str
    description: str
    sql: str
    is_fragment: bool = False


class Composed(msgspec.Struct, frozen=True):
    """A query made of fragments; `parameters` are the names of $1, $2, …"""

    sql: str
    parameters: tuple[str, ...]

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """The values to bind, in order; `given` may hold more. Raises `KeyError` for one that is missing."""
        return [given[name] for name in self.parameters]


def load_queries(directory: Path) -> Mapping[str, Query]:
    """All queries and fragments below `directory` by name; raises `InvalidQueryFile`."""
    found: dict[str, Query] = {}
    for path in sorted(directory.glob("*.sql")):
        for query in _parse(path):
            if query.name in found:
                raise InvalidQueryFile(f"{path.name}: there is already a query {query.name}")
            found[query.name] = query
    return MappingProxyType(found)


@cache
def queries() -> Mapping[str, Query]:
    """The queries and fragments of this installation, read once."""
    return load_queries(database_files("queries"))


def sql(name: str) -> str:
    """The text of query `name`; raises `KeyError`. Meant for module constants: a wrong name fails at import."""
    return _named(name, is_fragment=False).sql


def compose(name: str, rows: tuple[str, ...], filters: tuple[str, ...]) -> Composed:
    """The list of `rows` (fragments that make a SELECT … FROM …) that pass all `filters`, up to `:limit` of them.

    A filter is a condition, with the order that its index has where it gives one. The order of the list is that of the
    filters, one after the other. Raises `KeyError` as `sql` does.
    """
    parts = [_named(filter_name, is_fragment=True).sql.partition(_ORDER) for filter_name in filters]
    text = "\n".join(_named(row, is_fragment=True).sql for row in rows)
    text += "\nWHERE " + "\n  AND ".join(condition.strip() for condition, _, _ in parts)
    order = ", ".join(columns.strip() for _, _, columns in parts if columns)
    text += f"\n{_ORDER} {order} LIMIT :limit"
    parameters = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    numbered = _PARAMETER.sub(lambda match: f"${parameters.index(match[1]) + 1}", text)
    return Composed(f"/* {name} */ {numbered}", parameters)


def _named(name: str, *, is_fragment: bool) -> Query:
    query = queries()[name]
    if query.is_fragment is not is_fragment:
        raise KeyError(f"{name} is {'a fragment' if query.is_fragment else 'a whole query'}")
    return query


def _parse(path: Path) -> list[Query]:
    head, *parts = _HEAD.split(path.read_text(encoding="utf-8"))
    if _without_comments(head):
        raise InvalidQueryFile(f"{path.name}: text before the first '-- name:' or '-- fragment:' line")
    return [
        _query(path, kind, name, body) for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def _query(path: Path, kind: str, name: str, body: str) -> Query:
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
    is_fragment = kind == "fragment"
    return Query(
        name=name,
        description=" ".join(comment).strip(),
        sql=text if is_fragment else f"/* {name} */ {text}",
        is_fragment=is_fragment,
    )


def _without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines() if not line.lstrip().startswith("--")).strip()
