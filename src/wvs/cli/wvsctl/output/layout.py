"""Text for people: numbers with units, times, and columns that line up."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

NOTHING: Final = "-"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def printable(text: str) -> str:
    """`text` with every character that could steer a terminal shown as an escape.

    Names and messages come from others.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def size(count: int | None) -> str:
    """Bytes in the largest unit that gives at least one, e.g. `3.2 MiB`."""
    if count is None:
        return NOTHING
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def number(count: int | None) -> str:
    """A count with separators."""
    return NOTHING if count is None else f"{count:,}"


def moment(at: datetime | None) -> str:
    """A time in UTC to the second."""
    return NOTHING if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best, e.g. `22 ms`, `3.1 s`, `2 min 5 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def pairs(labels: Mapping[str, str]) -> str:
    """Labels as they are typed."""
    return " ".join(f"{key}={value}" for key, value in labels.items()) or NOTHING


def widths_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def aligned(
    rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None, right: frozenset[int] = frozenset()
) -> list[str]:
    """One line per row, columns two blanks apart, none cut off; those in `right` are flush right."""
    found = widths or widths_of(rows)
    return ["  ".join(_cells(row, found, right)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> list[str]:
    return [
        cell.rjust(width) if index in right else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
