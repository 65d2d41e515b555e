"""The story's last proof of the log: everything that is shown is made anew from it, and is the same."""

from typing import Any

from wvs.cli.wvsctl.demo.context import WORKSPACE, Stage


def rebuilt_and_compared(stage: Stage) -> None:
    """The read models are replayed beside the live ones, swapped in under the running service, and compared."""
    with stage.teller.step("Everything that is shown is made anew from the log, while the service runs"):
        before = _shown(stage)
        stage.teller.shows(stage.wvs("projections", "verify"))
        stage.teller.shows(stage.wvs("projections", "rebuild"))
        stage.teller.proves("workspace, snapshots and tasks are shown as before", holds=_shown(stage) == before)
        told = stage.wvs("projections", "verify")
        stage.teller.proves("and a replay of the log finds no row that differs", holds=told.startswith("equal:"))


def _shown(stage: Stage) -> list[dict[str, Any]]:
    return [
        stage.wvsctl("workspace", "get", WORKSPACE).document,
        stage.wvsctl("snapshot", "list", WORKSPACE, "--include-deleted").document,
        stage.wvsctl("task", "list", "--workspace", WORKSPACE).document,
    ]
