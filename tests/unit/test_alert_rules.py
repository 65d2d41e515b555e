"""The alert rules in the runbooks: Prometheus can load them, they ask for metrics that exist, and the list has all."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.unit.telemetry.test_metrics import CONTRACT
from wvs.cli.wvs.runbooks import runbooks
from wvs.executor.disks import WARN_USED_RATIO
from wvs.executor.workspace_sweep import Action

ROOT: Final = Path(__file__).parents[2]
_BLOCK: Final = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
_DURATION: Final = re.compile(r"\d+[smhd]")
_SELECTOR: Final = re.compile(r"(wvs_\w+)(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
_GROUPING: Final = re.compile(r"\bby \(([^)]*)\)")
_ADVICE: Final = re.compile(r"wvs runbook ([\w-]+)")


def groups() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each group of rules with the page that has it."""
    for name, page in runbooks().items():
        for block in _BLOCK.findall(page.read_text()):
            document = yaml.safe_load(block)
            assert list(document) == ["groups"], name
            for group in document["groups"]:
                yield name, group


RULES: Final = [pytest.param(page, rule, id=rule["alert"]) for page, group in groups() for rule in group["rules"]]


def test_groups_and_rules_have_names_of_their_own():
    names = [group["name"] for _, group in groups()]
    assert len(names) == len(set(names)) >= 3
    alerts = [rule.id for rule in RULES]
    assert len(alerts) == len(set(alerts))
    assert all(set(group) == {"name", "rules"} for _, group in groups())


@pytest.mark.parametrize(("page", "rule"), RULES)
def test_a_rule_is_complete_and_names_its_runbook(page: str, rule: dict[str, Any]):
    assert {"alert", "expr", "labels", "annotations"} <= set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch("Wvs[A-Za-z]+", rule["alert"])
    assert _DURATION.fullmatch(rule.get("for", "1m"))
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert _ADVICE.findall(rule["annotations"]["description"]) == [page]


@pytest.mark.parametrize(("page", "rule"), RULES)
def test_a_rule_asks_for_metrics_and_labels_that_exist(page: str, rule: dict[str, Any]):
    expression: str = rule["expr"]
    selected = _SELECTOR.findall(expression)
    assert selected, page
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)
    grouping = [label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",")]
    shown = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
    assert set(shown) <= set(grouping), "the sum has no other labels"
    for metric, matchers in selected:
        assert metric in CONTRACT, f"{metric} is not exported"
        labels = [label for label, _ in _MATCHER.findall(matchers)]
        assert len(labels) == len([part for part in matchers.split(",") if part])
        assert {*labels, *grouping} <= set(CONTRACT[metric])


def test_the_reference_lists_every_alert_with_its_runbook():
    text = (ROOT / "docs" / "reference.md").read_text()
    row = re.compile(r"^\| `(Wvs\w+)` \| .* \| \[[\w-]+\]\(\.\./runbooks/([\w-]+)\.md\) \|$", re.MULTILINE)
    listed = dict(row.findall(text))
    assert listed == {rule.id: rule.values[0] for rule in RULES}


def test_the_alert_of_a_full_disk_begins_where_the_log_warns():
    (rule,) = (rule.values[1] for rule in RULES if rule.id == "WvsDiskNearlyFull")
    assert float(rule["expr"].rpartition(">")[2]) == WARN_USED_RATIO  # type: ignore[index]


def test_the_actions_of_an_alert_are_those_of_the_sweeper():
    asked = [value for rule in RULES for label, value in _MATCHER.findall(rule.values[1]["expr"]) if label == "action"]  # type: ignore[index]
    assert asked
    assert {action for value in asked for action in value.split("|")} <= set(Action)
