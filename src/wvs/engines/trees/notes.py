"""Counts what a clone could not keep."""

from typing import Final

from wvs.engines.base import CloneNote
from wvs.engines.trees.descent import TreePath

_NAMED: Final = 20
"""Names in a note that lists them: notes are in an event, and so last for ever."""


class Notes:
    """Counts notes of each kind and remembers the first path of each, or the first `_NAMED`."""

    def __init__(self) -> None:
        self._noted: dict[str, tuple[int, str]] = {}
        self._more: dict[str, list[str]] = {}

    def add(self, what: str, place: TreePath, name: str) -> None:
        """Adds one note of the kind `what`."""
        count, example = self._noted.get(what) or (0, place.shown(name))
        self._noted[what] = (count + 1, example)

    def add_named(self, what: str, place: TreePath, name: str, about: str) -> None:
        """Adds a note of a kind that lists its names, each with what `about` says of it."""
        shown = f"{place.shown(name)} ({about})"
        if what not in self._noted:
            self._noted[what] = (1, shown)
            return
        count, example = self._noted[what]
        self._noted[what] = (count + 1, example)
        more = self._more.setdefault(what, [])
        if len(more) < _NAMED - 1:
            more.append(shown)

    def all(self) -> tuple[CloneNote, ...]:
        """All notes, sorted by kind."""
        more = self._more
        return tuple(CloneNote(what, *noted, tuple(more.get(what, ()))) for what, noted in sorted(self._noted.items()))
