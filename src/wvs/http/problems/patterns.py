"""Explains a value that does not match a pattern: a regular expression helps few callers."""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from wvs.domain.values import LABEL_KEY_PATTERN, NAME_PATTERN, TEXT_PATTERN
from wvs.http.wire.ids import ID_PATTERNS
from wvs.http.wire.positions import PATTERN as POSITION_PATTERN

_SHOWN_CHARACTERS: Final = 40
_ANY: Final = "[...]"
_MISMATCH: Final = re.compile(r"^Expected `[^`]*` matching regex (['\"].*['\"])$", re.DOTALL)

PATTERN_EXPLANATIONS: Final = {
    NAME_PATTERN: "must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end",
    LABEL_KEY_PATTERN: "must be 1 to 63 letters, digits and any of . _ / -, with a letter or digit at either end",
    TEXT_PATTERN: "must not contain the character U+0000",
    POSITION_PATTERN: "must be a position of the form epoch:position, such as 1:42",
    **{pattern: f"must be an id of the form {kind}_<26 characters>" for kind, pattern in ID_PATTERNS.items()},
}


def explain_mismatch(problem: str, candidates: Iterable[Any] = ()) -> str:
    """The `problem` that msgspec reported; for a mismatch of a pattern, a sentence that describes the expected form.

    The sentence quotes the first of `candidates` that does not match. Other problems do not read `candidates`.
    """
    mismatch = _MISMATCH.match(problem)
    if mismatch is None:
        return problem
    pattern = cast("str", ast.literal_eval(mismatch[1]))
    explanation = PATTERN_EXPLANATIONS.get(pattern, problem)
    for value in candidates:
        if isinstance(value, str) and not re.search(pattern, value):
            return f"{explanation}, not {_shortened(value)}"
    return explanation


def values_at(decoded: Any, path: str) -> Iterator[Any]:
    """The values in `decoded` at msgspec's `path`, such as `labels[...]`, where `[...]` means any member."""
    found: list[Any] = [decoded]
    for name in re.findall(r"[^.\[\]]+|\[(?:\.\.\.|[0-9]+)\]", path):
        found = [item for value in found for item in _children(value, name)]
    yield from found


def _children(value: Any, name: str) -> Iterable[Any]:
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return members.values() if name == _ANY else [members[name]] if name in members else []
    if isinstance(value, list) and name.startswith("["):
        items = cast("list[Any]", value)
        return items if name == _ANY else items[int(name[1:-1]) :][:1]
    return []


def _shortened(value: str) -> str:
    if len(value) <= _SHOWN_CHARACTERS:
        return repr(value)
    return f"{value[:_SHOWN_CHARACTERS]!r}… ({len(value)} characters)"
