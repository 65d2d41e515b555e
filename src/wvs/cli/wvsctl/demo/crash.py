"""The executor is killed in the middle of a clone, and the service gets over it."""

import os
import shutil
import signal
import time
from itertools import islice
from pathlib import Path
from typing import Final

from wvs.cli.wvsctl.demo.service import is_gone
from wvs.cli.wvsctl.demo.stage import WORKSPACE, Stage
from wvs.cli.wvsctl.demo.telling import NotAsTold
from wvs.cli.wvsctl.demo.walk import Tree, difference, files_of, fingerprint, walk
from wvs.engines.paths import TREES

ENOUGH_FILES: Final = 1_500
"""One worker clones these in half a second or more, which is time enough to be caught."""
_SOME: Final = 20
_CATCH_S: Final = 20.0
_SWEPT_S: Final = 20.0


def executor_killed_in_mid_clone(stage: Stage) -> None:
    """A snapshot of many files is begun, its executor killed with SIGKILL, and the snapshot becomes ready anyway."""
    tell = stage.teller
    with tell.step("The executor is killed in the middle of a clone"):
        _write_much(stage)
        content = walk(stage.link)
        tell.does(f"the live tree now has {files_of(content)} files, fingerprint {fingerprint(content)}")
        task_id, snapshot_id, torn = _kill_in_mid_clone(stage, content)
        done = stage.wvsctl("task", "wait", task_id).document
        tell.proves("the task succeeded at its second attempt", holds=done["attempt"] == 2, instead=done["attempt"])
        _prove_successor(stage, task_id)
        found = walk(stage.tree_of(snapshot_id))
        tell.proves(
            f"{snapshot_id} holds all {files_of(content)} files, fingerprint {fingerprint(content)}",
            holds=found == content,
            instead=difference(found, content),
        )
        tell.proves("the torn directory is swept away", holds=_becomes_gone(torn))


def _write_much(stage: Stage) -> None:
    project = stage.link / "project"
    files = files_of(walk(project))
    for copy in range(-(-ENOUGH_FILES // files)):
        shutil.copytree(project, stage.link / f"copy-{copy}", symlinks=True)


def _kill_in_mid_clone(stage: Stage, content: Tree) -> tuple[str, str, Path]:
    """The task, its snapshot, and the directory that the killed executor left."""
    trees = stage.link.parent / TREES
    before = set(trees.iterdir())
    victim = stage.service.executor()
    if victim is None:
        raise NotAsTold("there is an executor: no")
    accepted = stage.begin("snapshot", "create", WORKSPACE, "--no-wait")
    torn = _begun(trees, before)
    os.kill(victim, signal.SIGKILL)
    stage.teller.runs(f"kill -KILL {victim}")
    stage.teller.proves("the executor is gone", holds=is_gone(victim))
    left = files_of(walk(torn))
    stage.teller.proves(
        f"and left a torn directory with {left} of {files_of(content)} files", holds=0 < left < files_of(content)
    )
    document = accepted().document
    return document["task"]["id"], document["snapshot"]["id"], torn


def _begun(trees: Path, before: set[Path]) -> Path:
    """The directory that a clone has begun to fill, as soon as there is something in it."""
    deadline = time.monotonic() + _CATCH_S
    while time.monotonic() < deadline:
        for tree in set(trees.iterdir()) - before:
            if sum(1 for _ in islice(tree.rglob("*"), _SOME)) == _SOME:
                return tree
        time.sleep(0.002)
    raise NotAsTold(f"the clone began within {_CATCH_S:g} s: no")


def _prove_successor(stage: Stage, task_id: str) -> None:
    started = [
        event["data"]
        for event in stage.events()
        if event["type"] == "task.started.v1" and event["data"]["task_id"] == task_id
    ]
    fences = [data["fence"] for data in started]
    executors = {data["executor"] for data in started}
    stage.teller.proves(
        f"by another executor, under a higher fence ({' before '.join(map(str, fences))})",
        holds=len(executors) == len(started) == 2 and fences[0] < fences[1],
        instead=started,
    )


def _becomes_gone(directory: Path) -> bool:
    deadline = time.monotonic() + _SWEPT_S
    while directory.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
