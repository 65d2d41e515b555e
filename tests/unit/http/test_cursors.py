from typing import Any

import pytest

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.wire.cursors import decode_cursor, encode_cursor

Position = tuple[str, int]
ROUTE = "/v1/tasks"
FILTERS: dict[str, Any] = {"state": "queued", "workspace": None}
CURSOR = encode_cursor(("2026-01-01T00:00:00Z", 7), ROUTE, FILTERS)


def refused(text: str, route: str = ROUTE, filters: dict[str, Any] = FILTERS) -> bool:
    try:
        decode_cursor(text, Position, route, filters)
    except Refused as refusal:
        return refusal.code is ErrorCode.INVALID_CURSOR
    return False


def test_a_cursor_returns_its_position() -> None:
    assert decode_cursor(CURSOR, Position, ROUTE, FILTERS) == ("2026-01-01T00:00:00Z", 7)


def test_a_cursor_needs_no_escaping_in_a_url() -> None:
    assert all(character.isalnum() or character in "-_" for character in CURSOR)


@pytest.mark.parametrize("position", ["", "7", 0, -5, 3.5, True, None, [], ["é", 1], {}, ("2026-01-01T00:00:00Z", 7)])
def test_a_cursor_begins_with_a_letter(position: Any) -> None:
    """A shell command would take one that begins with `-` for an option."""
    assert all(encode_cursor(position, f"/v1/{n}", {})[0].isalpha() for n in range(200))


def test_filters_count_by_name_and_value_and_not_by_order_or_absence() -> None:
    assert not refused(CURSOR, filters={"workspace": None, "state": "queued"})
    assert not refused(CURSOR, filters={"state": "queued"})


@pytest.mark.parametrize(
    "filters",
    [{}, {"state": "running"}, {"kind": "queued"}, {"state": "queued", "workspace": "ws_1"}, {"state": ["queued"]}],
)
def test_a_cursor_is_refused_with_other_filters(filters: dict[str, Any]) -> None:
    assert refused(CURSOR, filters=filters)


def test_a_cursor_is_refused_by_another_list() -> None:
    assert refused(CURSOR, route="/v1/workspaces")


@pytest.mark.parametrize("cut", range(len(CURSOR)))
def test_a_truncated_cursor_is_refused(cut: int) -> None:
    assert refused(CURSOR[:cut])


@pytest.mark.parametrize("place", range(len(CURSOR)))
def test_a_cursor_with_any_one_character_changed_is_refused(place: int) -> None:
    for other in ("A", "B", "-", "!", "é", " "):
        if CURSOR[place] != other:
            assert refused(CURSOR[:place] + other + CURSOR[place + 1 :])


@pytest.mark.parametrize("text", [CURSOR + "=", CURSOR + "A", " " + CURSOR, CURSOR + "\n", "", "null", "é", "a" * 5000])
def test_a_text_that_is_not_a_cursor_is_refused(text: str) -> None:
    assert refused(text)


def test_a_position_of_another_type_is_refused() -> None:
    assert refused(encode_cursor(["only one"], ROUTE, FILTERS))
    assert refused(encode_cursor(("a", "7"), ROUTE, FILTERS))
