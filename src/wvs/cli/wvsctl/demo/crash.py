"""A step of the demo: it kills the executor in the middle of a clone, and the service recovers."""

import os
import shutil
import signal
import time
from itertools import islice
from pathlib import Path
from typing import Final

from wvs.cli.wvsctl.demo.context import WORKSPACE, DemoContext
from wvs.cli.wvsctl.demo.narrator import CheckFailed
from wvs.cli.wvsctl.demo.service import has_ended
from wvs.cli.wvsctl.demo.tree_walk import Tree, count_files, difference, fingerprint, walk
from wvs.engines.paths import TREES

ENOUGH_FILES: Final = 1_500
"""One worker needs at least half a second to clone these, which is long enough to kill it."""
_STARTED_FILES: Final = 20
_START_TIMEOUT_S: Final = 20.0
_SWEEP_TIMEOUT_S: Final = 20.0


def kill_executor_during_clone(demo: DemoContext) -> None:
    """Starts a snapshot of many files and kills its executor with SIGKILL; the snapshot still becomes ready."""
    narrator = demo.narrator
    with narrator.step("Kill the executor in the middle of a clone"):
        _write_many_files(demo)
        content = walk(demo.live)
        narrator.explain(
            f"an agent adds copies of the project: {count_files(content)} files, fingerprint {fingerprint(content)}"
        )
        task_id, snapshot_id, incomplete = _kill_during_clone(demo, content)
        done = demo.wvsctl("task", "wait", task_id).document
        narrator.check("the second attempt of the task succeeded", holds=done["attempt"] == 2, actual=done["attempt"])
        _check_takeover(demo, task_id)
        cloned = walk(demo.tree_of(snapshot_id))
        narrator.check(
            f"{snapshot_id} holds all {count_files(content)} files, fingerprint {fingerprint(content)}",
            holds=cloned == content,
            actual=difference(cloned, content),
        )
        narrator.check("the sweeper removed the incomplete directory", holds=_is_removed_soon(incomplete))


def _write_many_files(demo: DemoContext) -> None:
    project = demo.live / "project"
    files = count_files(walk(project))
    for copy in range(-(-ENOUGH_FILES // files)):
        shutil.copytree(project, demo.live / f"copy-{copy}", symlinks=True)


def _kill_during_clone(demo: DemoContext, content: Tree) -> tuple[str, str, Path]:
    """Returns the task, its snapshot, and the directory that the killed executor left."""
    trees = demo.workspace_directory / TREES
    before = set(trees.iterdir())
    victim = demo.service.executor()
    if victim is None:
        raise CheckFailed("no executor runs")
    wait_for_console = demo.start("snapshot", "create", WORKSPACE, "--no-wait")
    incomplete = _started_clone(trees, before)
    os.kill(victim, signal.SIGKILL)
    demo.narrator.show_command(f"kill -KILL {victim}")
    demo.narrator.check("the executor has ended", holds=has_ended(victim))
    left = count_files(walk(incomplete))
    demo.narrator.check(
        f"it left an incomplete directory with {left} of {count_files(content)} files",
        holds=0 < left < count_files(content),
    )
    document = wait_for_console().document
    return document["task"]["id"], document["snapshot"]["id"], incomplete


def _started_clone(trees: Path, before: set[Path]) -> Path:
    """Waits until a clone has written some files, and returns its directory."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        for tree in set(trees.iterdir()) - before:
            if sum(1 for _ in islice(tree.rglob("*"), _STARTED_FILES)) == _STARTED_FILES:
                return tree
        time.sleep(0.002)
    raise CheckFailed(f"no clone started within {_START_TIMEOUT_S:g} s")


def _check_takeover(demo: DemoContext, task_id: str) -> None:
    started = [
        event["data"]
        for event in demo.events()
        if event["type"] == "task.started.v1" and event["data"]["task_id"] == task_id
    ]
    fences = [data["fence"] for data in started]
    executors = {data["executor"] for data in started}
    demo.narrator.check(
        f"another executor took over; its higher fence shuts out the first: {', then '.join(map(str, fences))}",
        holds=len(executors) == len(started) == 2 and fences[0] < fences[1],
        actual=started,
    )


def _is_removed_soon(directory: Path) -> bool:
    deadline = time.monotonic() + _SWEEP_TIMEOUT_S
    while directory.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
