from datetime import UTC, datetime, timedelta, timezone

import pytest

from wvs.cli.wvsctl.output.layout import aligned, duration, moment, number, pairs, printable, size


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
def test_size_uses_the_largest_unit_that_gives_at_least_one(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0221, "22 ms"), (1, "1.0 s"), (59.94, "59.9 s"), (125, "2 min 5 s"), (3600, "60 min 0 s")]
)
def test_duration_uses_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_number_has_separators() -> None:
    assert (number(20761), number(None)) == ("20,761", "-")


def test_moment_is_told_in_utc() -> None:
    there = datetime(2026, 11, 23, 22, 5, 33, 900000, tzinfo=timezone(timedelta(hours=2)))
    assert moment(there) == "2026-11-23 20:05:33Z"
    assert moment(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02 00:00:00Z"
    assert moment(None) == "-"


def test_labels_look_as_they_are_typed() -> None:
    assert pairs({"team": "core", "run": "7"}) == "team=core run=7"
    assert pairs({}) == "-"


def test_nothing_that_others_wrote_can_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202ed") == "a\\x1b[2Jb\\r\\nc\\u202ed"
    assert printable("größe ✓ 大") == "größe ✓ 大"


def test_columns_line_up_and_lines_end_without_blanks() -> None:
    lines = aligned([["NAME", "N"], ["a", "1"], ["longer", "22"]], right=frozenset({1}))
    assert lines == ["NAME     N", "a        1", "longer  22"]
    assert aligned([["a", ""], ["bb", "c"]]) == ["a", "bb  c"]
