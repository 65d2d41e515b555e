"""Prints `state-machines.md`, generated from the tables of `wvs.domain.states`; `make docs` writes it to the file.

The tables list the steps that exist; the captions below list the events that cause them. A step without a caption, or a
caption without a step, is an error. A test compares the captions with the events of every pair of state and command.
"""

import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from wvs.domain.states import SNAPSHOT_STEPS, TASK_STEPS, WORKSPACE_STEPS

BIRTH: Final = "[*]"

Captions = Mapping[tuple[str, str], tuple[str, ...]]

WORKSPACE: Final[Captions] = {
    (BIRTH, "initializing"): ("WorkspaceCreated",),
    ("initializing", "active"): ("WorkspaceInitialized",),
    ("initializing", "init_failed"): ("WorkspaceInitFailed", "TaskCancelled"),
    ("init_failed", "initializing"): ("WorkspaceInitRetried",),
    ("initializing", "disabled"): ("WorkspaceDisabled",),
    ("active", "disabled"): ("WorkspaceDisabled",),
    ("init_failed", "disabled"): ("WorkspaceDisabled",),
}

SNAPSHOT: Final[Captions] = {
    (BIRTH, "creating"): ("SnapshotRequested",),
    ("creating", "ready"): ("SnapshotCreated",),
    ("creating", "failed"): ("SnapshotFailed", "TaskCancelled"),
    ("failed", "creating"): ("TaskRetried",),
    ("failed", "dropping"): ("SnapshotDropRequested",),
    ("ready", "dropping"): ("SnapshotDropRequested",),
    ("ready", "lost"): ("SnapshotLost",),
    ("lost", "dropping"): ("SnapshotDropRequested",),
    ("lost", "ready"): ("SnapshotFound",),
    ("dropping", "ready"): ("TaskCancelled",),
    ("dropping", "dropped"): ("SnapshotDropped",),
    ("dropping", "drop_failed"): ("SnapshotDropFailed", "TaskCancelled"),
    ("drop_failed", "dropping"): ("SnapshotDropRequested", "TaskRetried"),
}

TASK: Final[Captions] = {
    (BIRTH, "queued"): (
        "WorkspaceCreated",
        "WorkspaceInitRetried",
        "SnapshotRequested",
        "CurrentSetRequested",
        "SnapshotDropRequested",
    ),
    (BIRTH, "succeeded"): ("CurrentSetSkipped",),
    ("queued", "running"): ("TaskStarted",),
    ("queued", "cancelled"): ("TaskCancelled",),
    ("running", "succeeded"): (
        "WorkspaceInitialized",
        "SnapshotCreated",
        "CurrentSet",
        "CurrentSetSkipped",
        "SnapshotDropped",
    ),
    ("running", "queued"): ("TaskAttemptFailed",),
    ("running", "failed"): ("WorkspaceInitFailed", "SnapshotFailed", "CurrentSetFailed", "SnapshotDropFailed"),
    ("running", "cancelled"): ("TaskCancelled",),
    ("failed", "queued"): ("TaskRetried", "WorkspaceInitRetried"),
    ("failed", "cancelled"): ("TaskCancelled",),
}

_INTRODUCTION: Final = """\
# State machines

The three state machines of WVS, drawn from the tables in `src/wvs/domain/states.py`. An arrow is an event that is
stored in the log. There are no other ways from one state to another: WVS refuses to replay a log that contains one.
`tests/unit/domain/tables/` lists what each command does in each state, one row per pair.

This page is generated: `make docs` writes it, and a test fails if it differs from the tables.
"""

_NOTES: Final = {
    "Workspace": """\
Disabling is final by decision: the data stays and reads work. The outcome of a running task is still recorded.
""",
    "Snapshot": """\
A snapshot goes back from `dropping` to `ready` only if it was `ready` before, and the drop was cancelled before an
attempt began to remove its directory. A snapshot in `dropping` or `drop_failed` can never become current, because its
directory may be half removed. `lost` means that an executor found the directory of a ready snapshot missing.
It becomes `ready` again if an executor finds the directory there again, as the event of its creation describes it.
""",
    "Task": """\
`failed` is final until a person retries or abandons the task. A task that is queued, running or failed holds a
reference to the snapshot that it names. A `current_set` to the snapshot that is already current starts as `succeeded`.
""",
}


def page() -> str:
    """The text of `state-machines.md`; raises `ValueError` if captions and tables disagree."""
    return "\n".join(
        [
            _INTRODUCTION,
            _section("Workspace", WORKSPACE_STEPS, WORKSPACE),
            _section("Snapshot", SNAPSHOT_STEPS, SNAPSHOT),
            _section("Task", TASK_STEPS, TASK),
        ]
    )


def _section(title: str, steps: Mapping[StrEnum, frozenset[StrEnum]], captions: Captions) -> str:
    table = {(str(now), str(then)) for now, thens in steps.items() for then in thens}
    captioned = {edge for edge in captions if edge[0] != BIRTH}
    if table != captioned:
        raise ValueError(f"{title}: captions and table differ in {sorted(table ^ captioned)}")
    arrows = [f"{now} --> {then}: {_lines(events)}" for (now, then), events in captions.items()]
    ends = [f"{state} --> [*]" for state, thens in steps.items() if not thens]
    diagram = "\n".join(f"    {line}" for line in [*arrows, *ends])
    return f"## {title}\n\n{_NOTES[title]}\n```mermaid\nstateDiagram-v2\n{diagram}\n```\n"


def _lines(events: Iterable[str]) -> str:
    return "<br/>".join(events)


if __name__ == "__main__":
    sys.stdout.write(page())
