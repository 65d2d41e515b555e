"""Lists: one page, or with `--all` every page as it comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias, TypeVar

from cyclopts import Parameter
from cyclopts.validators import Number

from wvs.cli.wvsctl.actions.arguments import Flag
from wvs.cli.wvsctl.actions.invocation import Invocation
from wvs.cli.wvsctl.api.client import Query
from wvs.cli.wvsctl.api.documents import PageDocument
from wvs.cli.wvsctl.api.transport import Answer
from wvs.cli.wvsctl.output.tables import Column, TableWriter

T = TypeVar("T")

DEFAULT_LIMIT = 50


@dataclass(frozen=True)  # cyclopts spreads a dataclass over options, a msgspec Struct it does not know
class PagingOptions:
    """How much of a list is wanted.

    Parameters
    ----------
    limit
        Items per page, 1 to 1000.
    all
        Every page, as they come; with --json one item a line.
    cursor
        Go on where a page ended: its next_cursor, with the same filters.
    """

    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = DEFAULT_LIMIT
    all: Flag = False
    cursor: str | None = None


Paging: TypeAlias = Annotated[PagingOptions | None, Parameter(name="*")]


def show_list(
    run: Invocation,
    path: str,
    filters: Sequence[tuple[str, str | None]],
    columns: Sequence[Column[T]],
    kind: type[T],
    paging: PagingOptions | None,
    cursor_name: str = "cursor",
) -> None:
    """Print the list at `path`, whose cursors are sent as `cursor_name`.

    As JSON one page is the API's own document, and every page is JSON Lines: the items, one a line.
    """
    wanted = paging or PagingOptions()
    query = [(name, value) for name, value in filters if value is not None] + [("limit", str(wanted.limit))]
    cursor = wanted.cursor
    table = TableWriter(run.screen, columns)
    while True:
        answer = run.client.get(path, _from(query, cursor_name, cursor))
        page = run.client.decode(answer, PageDocument)
        if not page.items and page.next_cursor is not None:  # it looked for what is rare, and is not at the end
            cursor = page.next_cursor
            continue
        if run.screen.as_json:
            _show_json(run, answer, page, every=wanted.all)
        else:
            table.write([run.client.decode_bytes(item, kind) for item in page.items])
        cursor = page.next_cursor
        if cursor is None:
            return
        if not wanted.all:
            run.screen.say(f"there is more: --all, or go on with --cursor {cursor}")
            return


def _from(query: Query, name: str, cursor: str | None) -> Query:
    return query if cursor is None else [*query, (name, cursor)]


def _show_json(run: Invocation, answer: Answer, page: PageDocument, *, every: bool) -> None:
    if not every:
        run.screen.show_json(answer.body)
        return
    for item in page.items:
        run.screen.show_json(bytes(item))
