"""What a clone could not keep, counted."""

from wvs.engines.base import Note
from wvs.engines.trees.descent import Place


class Notes:
    """Collects notes; the first place of each kind is remembered."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, place: Place, name: str) -> None:
        """One more `what`."""
        count, example = self._found.get(what) or (0, place.shown(name))
        self._found[what] = (count + 1, example)

    def all(self) -> tuple[Note, ...]:
        """Every note, by name."""
        return tuple(Note(what, *self._found[what]) for what in sorted(self._found))
