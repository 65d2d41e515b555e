"""A run that skips tests says so: in CI as a failure, elsewhere in a sentence at the end.

With CI=true in the environment a skipped test fails, unless its reason matches an entry of allowed_skips.toml. No entry
can allow a missing program or missing root: `make test-deps` and the CI machine provide these.
"""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.skips import NOT_INSTALLED, NOT_ROOT

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.toml")
_NEVER_ALLOWED = (NOT_INSTALLED, NOT_ROOT)
_PREFIX = "Skipped: "


class SkipPolicy:
    """A pytest plugin. Under pytest-xdist every worker judges its own tests, and the controller sums up."""

    def __init__(self, allowed: list[re.Pattern[str]], *, strict: bool) -> None:
        self._allowed = allowed
        self._strict = strict

    @classmethod
    def of_this_run(cls) -> Self:
        """The policy for the environment of this process."""
        return cls(read_allowed(), strict=os.environ.get("CI", "").lower() in ("1", "true", "yes"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if not hasattr(report, "wasxfail"):
            self._judge(report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        self._judge(report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None, Any, Any]:
        """Written below the list of skips, as the last line before pytest's totals."""
        result = yield
        reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
        if sentence := untested(reasons):
            terminalreporter.write_line(sentence, yellow=True)
        return result

    def _judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if self._strict and report.skipped and not self._is_allowed(reason := _reason(report)):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, where that is a failure: {reason}\n{_way_out(reason)}"

    def _is_allowed(self, reason: str) -> bool:
        return not reason.startswith(_NEVER_ALLOWED) and any(pattern.fullmatch(reason) for pattern in self._allowed)


def read_allowed(path: Path = ALLOWED_SKIPS) -> list[re.Pattern[str]]:
    """The patterns of allowed reasons. Raises `ValueError` for an entry without an explanation."""
    entries = tomllib.loads(path.read_text())["skip"]
    for entry in entries:
        if set(entry) != {"reason", "why"} or not entry["why"].strip():
            raise ValueError(f"{path}: an entry needs `reason` (a regular expression) and `why`, and has {entry}")
    return [re.compile(entry["reason"]) for entry in entries]


def untested(reasons: Counter[str]) -> str:
    """One sentence about the tests that the machine could not run; empty if it could run all."""
    lacking = {
        reason.removeprefix(NOT_INSTALLED): n for reason, n in reasons.items() if reason.startswith(NOT_INSTALLED)
    }
    as_root = sum(n for reason, n in reasons.items() if reason.startswith(NOT_ROOT))
    parts: list[str] = []
    if lacking:
        programs = ", ".join(sorted(lacking))
        parts.append(f"{_tests(sum(lacking.values()))} without {programs} (`make test-deps` installs what is missing)")
    if as_root:
        parts.append(f"{_tests(as_root)} without root (run as root to include them)")
    return f"Left untested: {'; '.join(parts)}." if parts else ""


def _tests(number: int) -> str:
    return "1 test" if number == 1 else f"{number} tests"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix(_PREFIX)


def _way_out(reason: str) -> str:
    if reason.startswith(NOT_INSTALLED):
        return "Run `make test-deps`; if that does not install it, add it to requirements/test-programs.txt."
    if reason.startswith(NOT_ROOT):
        return "Run the tests as root."
    return f"Make the test run here, or explain the skip in {ALLOWED_SKIPS.name}."
