"""Prints lists: a table on a terminal, aligned columns in a pipe. Neither ever truncates an id."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from wvs.cli.wvsctl.api.documents import SnapshotDocument, TaskDocument, WorkspaceDocument
from wvs.cli.wvsctl.output.layout import NOTHING, aligned, moment, number, pairs, printable, size, widths_of
from wvs.cli.wvsctl.output.screen import Screen

T = TypeVar("T")

STYLES = {
    "active": "green",
    "ready": "green",
    "succeeded": "green",
    "init_failed": "red",
    "failed": "red",
    "drop_failed": "red",
    "lost": "bold red",
    "initializing": "yellow",
    "creating": "yellow",
    "dropping": "yellow",
    "running": "yellow",
    "queued": "yellow",
    "disabled": "dim",
    "dropped": "dim",
    "cancelled": "dim",
}


class Column(Struct, Generic[T], frozen=True):
    """One column: its title and its cell for each row. A narrow terminal may wrap the text of a `free` column."""

    title: str
    cell: Callable[[T], str]
    right: bool = False
    free: bool = False


WORKSPACES: Sequence[Column[WorkspaceDocument]] = (
    Column("NAME", lambda it: it.name),
    Column("ID", lambda it: it.id),
    Column("STATE", lambda it: it.state),
    Column("CURRENT", lambda it: it.current_snapshot_id or NOTHING),
    Column("EPOCH", lambda it: str(it.epoch), right=True),
    Column("CREATED", lambda it: moment(it.created_at)),
    Column("LABELS", lambda it: pairs(it.labels), free=True),
)

SNAPSHOTS: Sequence[Column[SnapshotDocument]] = (
    Column("ID", lambda it: it.id),
    Column("STATE", lambda it: it.state),
    Column("ENGINE", lambda it: it.engine or NOTHING),
    Column("FILES", lambda it: number(it.files), right=True),
    Column("SIZE", lambda it: size(it.bytes), right=True),
    Column("NOTES", lambda it: number(len(it.notes) or None), right=True),
    Column("CREATED", lambda it: moment(it.created_at)),
    Column("LABELS", lambda it: pairs(it.labels), free=True),
    Column("MESSAGE", lambda it: it.message or NOTHING, free=True),
)

TASKS: Sequence[Column[TaskDocument]] = (
    Column("ID", lambda it: it.id),
    Column("KIND", lambda it: it.kind),
    Column("STATE", lambda it: it.state),
    Column("ATTEMPT", lambda it: f"{it.attempt}/{it.max_attempts}", right=True),
    Column("CREATED", lambda it: moment(it.created_at)),
    Column("ERROR", lambda it: it.error.code if it.error else NOTHING),
    Column("SNAPSHOT", lambda it: it.snapshot_id or NOTHING),
    Column("WORKSPACE", lambda it: it.workspace_id),
)


class TableWriter(Generic[T]):
    """Prints a list page by page, so that a long list starts at once; the first page decides the column widths."""

    def __init__(self, screen: Screen, columns: Sequence[Column[T]]) -> None:
        self._screen = screen
        self._columns = columns
        self._widths: list[int] | None = None

    def write(self, items: Sequence[T]) -> None:
        """Prints the next page; the first page, even an empty one, gets the header."""
        rows = [[printable(column.cell(item)) for column in self._columns] for item in items]
        titles = [column.title for column in self._columns]
        first = self._widths is None
        widths = self._widths or widths_of([titles, *rows])
        self._widths = widths
        if self._screen.out_is_terminal:
            self._draw(titles if first else None, rows, widths)
            return
        right = frozenset(index for index, column in enumerate(self._columns) if column.right)
        for line in aligned([titles, *rows] if first else rows, _widened(widths, rows), right):
            self._screen.show(line)

    def _draw(self, titles: Sequence[str] | None, rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
        """Prints on a terminal. The table may be wider than the terminal: nobody can copy a truncated id."""
        from rich.console import Console  # noqa: PLC0415  # costs 0.1 s, which output to a pipe need not pay
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console(file=self._screen.out, highlight=False)
        fixed = [width for width, column in zip(widths, self._columns, strict=True) if not column.free]
        minimum = sum(fixed) + 12 * (len(widths) - len(fixed)) + 2 * len(widths)
        table = Table(box=None, show_header=titles is not None, pad_edge=False, padding=(0, 2, 0, 0))
        for column, width in zip(self._columns, widths, strict=True):
            limits: dict[str, Any] = {"max_width": 60} if column.free else {"min_width": width, "no_wrap": True}
            table.add_column(column.title, justify="right" if column.right else "left", header_style="bold", **limits)
        for row in rows:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        console.width = max(console.width, minimum)
        console.print(table)


def _widened(widths: Sequence[int], rows: Sequence[Sequence[str]]) -> list[int]:
    """The widths, enlarged where a cell of a later page is wider."""
    return [max([width, *(len(row[index]) for row in rows)]) for index, width in enumerate(widths)]
