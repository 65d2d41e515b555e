"""`wvsctl task retry --failed` against a service whose live trees are taken away and put back."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.wvsctl.consoles import Wvsctl

from wvs.cli.wvsctl.actions import retrying

FAILED = ("task", "list", "--state", "failed")
NOBODY = "task_00000000000000000000000000"
RETRY = ("task", "retry", "--failed", "--yes")


class Broken:
    """A workspace whose live tree is missing, so that each snapshot fails with TREE_MISSING."""

    def __init__(self, wvsctl: Wvsctl, name: str, tasks: int) -> None:
        wvsctl.ok("workspace", "create", name)
        self.name = name
        self._root = Path(wvsctl.ok("workspace", "path", name).out.strip()).resolve()
        self._root.rename(self._root.with_name("away"))
        self.tasks = [wvsctl.json("--no-wait", "snapshot", "create", name)["task"]["id"] for _ in range(tasks)]
        for task in self.tasks:
            assert wvsctl("task", "wait", task).code == 6

    def repair(self) -> None:
        self._root.with_name("away").rename(self._root)


def task_of_a_lost_snapshot(wvsctl: Wvsctl, name: str) -> str:
    """A failed task that the API refuses to retry."""
    wvsctl.ok("workspace", "create", name)
    live = Path(wvsctl.ok("workspace", "path", name).out.strip()).parent
    snapshot = wvsctl.json("snapshot", "create", name)["snapshot"]["id"]
    (tree,) = (live.parent / "trees").iterdir()
    shutil.rmtree(tree)
    task = wvsctl.json("--no-wait", "current", "set", name, snapshot)["task"]["id"]
    assert wvsctl("task", "wait", task).code == 6
    return task


Break = Callable[[int], Broken]


@pytest.fixture
def broken(wvsctl: Wvsctl, name: Callable[[], str]) -> Iterator[Break]:
    yield lambda tasks: Broken(wvsctl, name(), tasks)
    for task in wvsctl.json(*FAILED)["items"]:
        wvsctl("task", "cancel", task["id"])


def test_all_failed_tasks_are_retried_oldest_first_and_each_is_reported(
    wvsctl: Wvsctl, broken: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "_PAGE", 2)  # the tasks are on several pages
    first, second = broken(2), broken(3)
    first.repair()
    second.repair()
    result = wvsctl.ok(*RETRY)
    tasks = [*first.tasks, *second.tasks]
    assert result.out.splitlines() == [f"snapshot_create {task}: succeeded" for task in tasks]
    assert "idempotency key: " in result.err
    assert wvsctl.json(*FAILED)["items"] == []
    retried = [wvsctl.json("task", "get", task)["finished_at"] for task in second.tasks]
    assert sorted(retried) == retried


def test_a_task_that_fails_again_or_is_refused_does_not_keep_the_others_from_it(
    wvsctl: Wvsctl, broken: Break, name: Callable[[], str]
) -> None:
    fails, works = broken(1), broken(1)
    works.repair()
    lost = task_of_a_lost_snapshot(wvsctl, name())
    result = wvsctl("--json", *RETRY)
    lines = {line["task_id"]: line for line in map(json.loads, result.out.splitlines())}
    assert lines[works.tasks[0]]["task"]["state"] == "succeeded"
    assert lines[fails.tasks[0]]["task"]["error"]["code"] == "TREE_MISSING"
    assert lines[lost]["problem"]["code"] == "SNAPSHOT_NOT_READY"
    assert f"current_set {lost}: not retried: " in result.err
    assert result.code == 5
    assert "1 of 3 failed tasks were retried with success" in result.err
    assert wvsctl(*RETRY, "--workspace", fails.name).code == 6


def test_code_and_workspace_narrow_what_is_retried(wvsctl: Wvsctl, broken: Break) -> None:
    one, other = broken(1), broken(1)
    one.repair()
    other.repair()
    assert "nothing to retry" in wvsctl.ok(*RETRY, "--code", "VOLUME_UNAVAILABLE").err
    assert len(wvsctl.ok(*RETRY, "--workspace", one.name, "--code", "TREE_MISSING").out.splitlines()) == 1
    assert [task["id"] for task in wvsctl.json(*FAILED)["items"]] == other.tasks


def test_without_waiting_the_tasks_are_only_queued_and_a_repetition_under_the_key_queues_none_again(
    wvsctl: Wvsctl, broken: Break
) -> None:
    it = broken(1)
    key = "the-first-retry"
    result = wvsctl.ok(*RETRY, "--no-wait", "--idempotency-key", key)
    assert result.out == f"snapshot_create {it.tasks[0]}: queued\n"
    assert wvsctl("task", "wait", it.tasks[0]).code == 6, "the tree is still missing"
    retries = ("audit", "log", it.name, "--type", "task.retried.v1", "--json")
    before = wvsctl.ok(*retries).out
    wvsctl(*RETRY, "--no-wait", "--idempotency-key", key)
    assert wvsctl.ok(*retries).out == before
    assert wvsctl(*RETRY, "--workspace", it.name).code == 6
    assert wvsctl.ok(*retries).out != before, "under a new key it is retried"


@pytest.mark.parametrize("arguments", [(), ("--failed", NOBODY), (NOBODY, "--code", "X"), (NOBODY, "--workspace", "w")])
def test_a_retry_names_one_task_or_all_failed_ones(wvsctl: Wvsctl, arguments: tuple[str, ...]) -> None:
    assert wvsctl("task", "retry", *arguments).code == 2


def test_without_a_confirmation_nothing_is_retried(wvsctl: Wvsctl, broken: Break) -> None:
    it = broken(2)
    result = wvsctl("task", "retry", "--failed")
    assert result.code == 2
    assert "this retries 2 failed tasks (2 TREE_MISSING)" in result.err
    assert len(wvsctl.json("task", "list", "--workspace", it.name, "--state", "failed")["items"]) == 2
