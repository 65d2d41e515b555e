"""Prints lists: one page, or with `--all` every page as it arrives."""

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


@dataclass(frozen=True)  # cyclopts turns the fields of a dataclass into options, but not those of a Struct
class PagingOptions:
    """Which part of a list to print.

    Parameters
    ----------
    limit
        Items per page, 1 to 1000.
    all
        Print every page; with --json one item per line.
    cursor
        Continue after a page: its next_cursor, with the same filters.
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
    """Prints the list at `path`; `cursor_name` is the query parameter that takes its cursors.

    With `--json` one page is the API's own document; with `--all` the output is JSON Lines, one item per line.
    """
    options = paging or PagingOptions()
    query = [(name, value) for name, value in filters if value is not None] + [("limit", str(options.limit))]
    cursor = options.cursor
    table = TableWriter(run.screen, columns)
    while True:
        answer = run.client.get(path, _with_cursor(query, cursor_name, cursor))
        page = run.client.decode(answer, PageDocument)
        if not page.items and page.next_cursor is not None:  # a filter with few hits: the list continues
            cursor = page.next_cursor
            continue
        if run.screen.as_json:
            _show_json(run, answer, page, all_pages=options.all)
        else:
            table.write([run.client.decode_bytes(item, kind) for item in page.items])
        cursor = page.next_cursor
        if cursor is None:
            return
        if not options.all:
            run.screen.notify(f"the list continues: use --all, or --cursor {cursor}")
            return


def _with_cursor(query: Query, name: str, cursor: str | None) -> Query:
    return query if cursor is None else [*query, (name, cursor)]


def _show_json(run: Invocation, answer: Answer, page: PageDocument, *, all_pages: bool) -> None:
    if not all_pages:
        run.screen.show_json(answer.body)
        return
    for item in page.items:
        run.screen.show_json(bytes(item))
