"""Formats text: numbers with units, times, and aligned columns."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

NOTHING: Final = "-"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def printable(text: str) -> str:
    """Escapes every character in `text` that could control the terminal.

    Names and messages come from other users.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def size(count: int | None) -> str:
    """A number of bytes in the largest unit in which it is at least 1, e.g. `3.2 MiB`."""
    if count is None:
        return NOTHING
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def number(count: int | None) -> str:
    """A count with thousands separators."""
    return NOTHING if count is None else f"{count:,}"


def counted(count: int | None, noun: str) -> str:
    """A count with its noun, which gets an -s unless the count is 1, e.g. `1 file`, `20,761 files`."""
    return f"{number(count)} {noun}" + ("" if count == 1 else "s")


def moment(at: datetime | None) -> str:
    """A time in UTC to the second."""
    return NOTHING if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def duration(seconds: float) -> str:
    """A duration in the most readable unit, e.g. `22 ms`, `3.1 s`, `2 min 5 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def pairs(labels: Mapping[str, str]) -> str:
    """Labels in the form in which the user types them."""
    return " ".join(f"{key}={value}" for key, value in labels.items()) or NOTHING


def widths_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def aligned(
    rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None, right: frozenset[int] = frozenset()
) -> list[str]:
    """One line per row, with two spaces between columns and no cell truncated; columns in `right` align right."""
    chosen = widths or widths_of(rows)
    return ["  ".join(_cells(row, chosen, right)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> list[str]:
    return [
        cell.rjust(width) if index in right else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
