from datetime import UTC, datetime, timedelta, timezone

import pytest

from wvs.cli.wvsctl.output.layout import aligned, counted, duration, moment, number, pairs, printable, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3_355_443, "3.2 MiB"),
        (2**50, "1.0 PiB"),
        (2**61, "2048.0 PiB"),
    ],
)
def test_size_uses_the_largest_unit_in_which_it_is_at_least_one(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0221, "22 ms"), (1, "1.0 s"), (59.94, "59.9 s"), (125, "2 min 5 s"), (3600, "60 min 0 s")]
)
def test_duration_uses_the_most_readable_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_number_has_separators() -> None:
    assert (number(20761), number(None)) == ("20,761", "-")


def test_a_counted_noun_is_singular_only_for_one() -> None:
    assert [counted(count, "file") for count in (0, 1, 2000, None)] == ["0 files", "1 file", "2,000 files", "- files"]


def test_moment_is_in_utc() -> None:
    there = datetime(2026, 11, 23, 22, 5, 33, 900000, tzinfo=timezone(timedelta(hours=2)))
    assert moment(there) == "2026-11-23 20:05:33Z"
    assert moment(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02 00:00:00Z"
    assert moment(None) == "-"


def test_labels_look_as_the_user_types_them() -> None:
    assert pairs({"team": "core", "run": "7"}) == "team=core run=7"
    assert pairs({}) == "-"


def test_text_of_other_users_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202ed") == "a\\x1b[2Jb\\r\\nc\\u202ed"
    assert printable("größe ✓ 大") == "größe ✓ 大"


def test_columns_line_up_and_lines_have_no_trailing_spaces() -> None:
    lines = aligned([["NAME", "N"], ["a", "1"], ["longer", "22"]], right=frozenset({1}))
    assert lines == ["NAME     N", "a        1", "longer  22"]
    assert aligned([["a", ""], ["bb", "c"]]) == ["a", "bb  c"]
