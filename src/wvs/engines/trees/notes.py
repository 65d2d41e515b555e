"""Counts what a clone could not keep."""

from wvs.engines.base import CloneNote
from wvs.engines.trees.descent import TreePath


class Notes:
    """Counts notes of each kind and remembers the first path of each."""

    def __init__(self) -> None:
        self._noted: dict[str, tuple[int, str]] = {}

    def add(self, what: str, place: TreePath, name: str) -> None:
        """Adds one note of the kind `what`."""
        count, example = self._noted.get(what) or (0, place.shown(name))
        self._noted[what] = (count + 1, example)

    def all(self) -> tuple[CloneNote, ...]:
        """All notes, sorted by kind."""
        return tuple(CloneNote(what, *self._noted[what]) for what in sorted(self._noted))
