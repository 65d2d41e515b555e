"""The steps of `wvsctl demo`, with the checks of each step."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

import wvs
from wvs.cli.wvsctl.api.documents import CertificateDocument
from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.audit.documents import EventDocument
from wvs.cli.wvsctl.audit.event_sentences import event_sentence
from wvs.cli.wvsctl.demo.context import WORKSPACE, DemoContext
from wvs.cli.wvsctl.demo.crash import kill_executor_during_clone
from wvs.cli.wvsctl.demo.freezing import fail_to_freeze, freeze_program
from wvs.cli.wvsctl.demo.narrator import Narrator
from wvs.cli.wvsctl.demo.projections import rebuild_read_models
from wvs.cli.wvsctl.demo.tampering import detect_forgery
from wvs.cli.wvsctl.demo.tree_walk import Tree, count_files, difference, fingerprint, walk
from wvs.cli.wvsctl.output.certificate import describe_certificate

Step: TypeAlias = Callable[["Walkthrough"], None]

_NO_SOURCE: Final = ("__pycache__", "*.pyc", ".*", "node_modules")


class Walkthrough:
    """The context of the demo, and the results that later steps need."""

    def __init__(self, demo: DemoContext) -> None:
        self.demo = demo
        self.first = ""
        self.second = ""
        self.content: Tree = {}

    @property
    def narrator(self) -> Narrator:
        return self.demo.narrator


def create_workspace(run: Walkthrough) -> None:
    """Creates a workspace with an empty live tree."""
    with run.narrator.step("Create a workspace"):
        run.narrator.explain(
            "a workspace versions the working directory of an agent; the agent writes to its live tree"
        )
        workspace = run.demo.wvsctl("workspace", "create", WORKSPACE).document["workspace"]
        run.demo.live = Path(workspace["path"])
        run.narrator.check("the workspace is active", holds=workspace["state"] == "active", actual=workspace["state"])
        run.narrator.check(f"its live tree exists and is empty: {workspace['path']}", holds=walk(run.demo.live) == {})


def write_files(run: Walkthrough) -> None:
    """Plays an agent: copies this project's own source tree into the live tree."""
    with run.narrator.step("Let an agent work: it copies a source tree into the live tree"):
        source = source_tree()
        path = run.demo.wvsctl("workspace", "path", WORKSPACE).document["path"]
        run.narrator.explain(f"the agent copies {source} to project/, without caches")
        run.narrator.explain("the fingerprint below covers the contents, owners, modes and times of all files")
        shutil.copytree(source, Path(path) / "project", symlinks=True, ignore=shutil.ignore_patterns(*_NO_SOURCE))
        run.content = walk(run.demo.live)
        files = count_files(run.content)
        run.narrator.check(
            f"the live tree has {files} files, fingerprint {fingerprint(run.content)}",
            holds=files > 50,
        )


def take_first_snapshot(run: Walkthrough) -> None:
    """Takes the first snapshot and compares it with the live tree, by code that the engines do not use."""
    with run.narrator.step("Take a snapshot"):
        run.narrator.explain("WVS freezes all agents, clones the live tree and proves that no process wrote meanwhile:")
        run.narrator.explain("it takes a stamp of the live tree before and after the clone, and both must be equal")
        run.first = take_snapshot(run, "first")
        _check_snapshot(run, run.first, run.content)


def take_second_snapshot(run: Walkthrough) -> None:
    """Changes the live tree and takes a second snapshot, which leaves the first unchanged."""
    with run.narrator.step("Let the agent make changes, and take a second snapshot"):
        project = run.demo.live / "project"
        victim = next(path for path in sorted(project.rglob("*.py")) if path.stat().st_size > 0)
        victim.write_text("# spoiled\n")
        shutil.rmtree(next(path for path in sorted(project.iterdir(), reverse=True) if path.is_dir()))
        (project / "notes.txt").write_text("new\n")
        changed = walk(run.demo.live)
        run.narrator.explain("the agent overwrites one file, removes one directory and adds one file")
        run.second = take_snapshot(run, "second")
        _check_snapshot(run, run.second, changed)
        run.narrator.check("the second snapshot differs from the first", holds=bool(difference(changed, run.content)))
        _check_snapshot(run, run.first, run.content)


def go_back(run: Walkthrough) -> None:
    """Replaces the live tree with the content of the first snapshot."""
    with run.narrator.step("Go back to the first snapshot"):
        run.narrator.explain(
            "WVS clones the snapshot to a new directory and exchanges it with the live tree, whose path stays"
        )
        before = run.demo.live_tree()
        document = run.demo.wvsctl("current", "set", WORKSPACE, run.first).document
        run.narrator.check("the task succeeded", holds=document["task"]["state"] == "succeeded")
        run.narrator.check("the first snapshot is current", holds=document["current"]["snapshot_id"] == run.first)
        run.narrator.check("another tree is at the same path", holds=run.demo.live_tree() != before)
        _check_equal(run, "the live tree", walk(run.demo.live), run.content)


def set_current_again(run: Walkthrough) -> None:
    """Sets the snapshot that is already current, which does nothing."""
    with run.narrator.step("Set the same snapshot again"):
        before = run.demo.live_tree()
        task = run.demo.wvsctl("current", "set", WORKSPACE, run.first).document["task"]
        run.narrator.check("nothing to do: no freeze and no clone", holds=task["noop"] and task["attempt"] == 0)
        run.narrator.check("the live tree is still the same directory", holds=run.demo.live_tree() == before)


def try_to_drop_current(run: Walkthrough) -> None:
    """Tries to drop the current snapshot, which the API refuses."""
    with run.narrator.step("Try to drop the current snapshot"):
        result = run.demo.wvsctl("snapshot", "drop", WORKSPACE, run.first, "--yes", expected_exit=Exit.CONFLICT)
        run.narrator.show_output(result.messages.partition("wvsctl: ")[2])
        blockers = result.document["blockers"]
        run.narrator.check(
            "the API refuses (exit code 5) and names the reason", holds=blockers == [{"kind": "current"}]
        )
        _check_snapshot(run, run.first, run.content)


def drop_snapshot(run: Walkthrough) -> None:
    """Drops a snapshot that nothing uses: WVS deletes its directory and keeps its record."""
    with run.narrator.step("Drop the second snapshot"):
        tree = run.demo.tree_of(run.second)
        run.narrator.explain(f"its directory: {tree}")
        run.narrator.check("the directory exists", holds=tree.is_dir())
        dropped = run.demo.wvsctl("snapshot", "drop", WORKSPACE, run.second, "--yes").document["snapshot"]
        run.narrator.check(
            "the snapshot is dropped, and its record keeps the time of the drop", holds=bool(dropped["deleted_at"])
        )
        run.narrator.check("the directory no longer exists", holds=not tree.exists() and not tree.parent.exists())


def read_audit(run: Walkthrough) -> None:
    """Prints every event, in order: who did what."""
    with run.narrator.step("Read the audit: who did what, and when"):
        events = run.demo.events()
        for event in events:
            sentence = event_sentence(msgspec.convert(event, EventDocument))
            run.narrator.show_output(
                f"{event['version']:3}  {event['occurred_at'][11:23]}  {event['actor']} {sentence}"
            )
        versions = [event["version"] for event in events]
        run.narrator.check("the versions have no gap", holds=versions == list(range(versions[0], len(events) + 1)))
        types = [event["type"] for event in events if not event["type"].startswith("task.")]
        run.narrator.check(
            "the events are those of this demo, and no others", holds=types == list(EXPECTED_TYPES), actual=types
        )


STEPS: Final[Sequence[Step]] = (
    create_workspace,
    write_files,
    take_first_snapshot,
    take_second_snapshot,
    go_back,
    set_current_again,
    try_to_drop_current,
    drop_snapshot,
    lambda run: freeze_program(run.demo),
    lambda run: fail_to_freeze(run.demo),
    lambda run: kill_executor_during_clone(run.demo),
    read_audit,
    lambda run: detect_forgery(run.demo),
    lambda run: rebuild_read_models(run.demo),
)

EXPECTED_TYPES: Final = (
    "workspace.created.v2",
    "workspace.initialized.v1",
    "snapshot.requested.v1",
    "snapshot.created.v1",
    "snapshot.requested.v1",
    "snapshot.created.v1",
    "current.set_requested.v1",
    "current.set.v1",
    "current.set_skipped.v1",
    "snapshot.drop_requested.v1",
    "snapshot.dropped.v1",
    "snapshot.requested.v1",
    "snapshot.created.v1",
    "snapshot.requested.v1",
    "snapshot.failed.v1",
    "snapshot.requested.v1",
    "snapshot.created.v1",
)


def source_tree() -> Path:
    """This project's checkout, or the installed package if there is no checkout."""
    package = Path(wvs.__file__).parent
    checkout = package.parents[1]
    return checkout if (checkout / "pyproject.toml").exists() else package


def take_snapshot(run: Walkthrough, message: str) -> str:
    """Takes a snapshot, prints its certificate and returns its id."""
    document = run.demo.wvsctl("snapshot", "create", WORKSPACE, "--message", message).document
    made = document["snapshot"]
    run.narrator.check(f"{made['id']} is ready", holds=made["state"] == "ready", actual=made["state"])
    certificate = run.demo.certificate_of(made)
    run.narrator.show_output("\n".join(describe_certificate(certificate)))
    run.narrator.check("its stamps are equal", holds=_stamps_are_equal(certificate))
    return str(made["id"])


def _stamps_are_equal(certificate: CertificateDocument) -> bool:
    return bool(certificate.stamp_before) and certificate.stamp_before == certificate.stamp_after


def _check_snapshot(run: Walkthrough, snapshot_id: str, content: Tree) -> None:
    _check_equal(run, snapshot_id, walk(run.demo.tree_of(snapshot_id)), content)


def _check_equal(run: Walkthrough, name: str, actual: Tree, expected: Tree) -> None:
    run.narrator.check(
        f"{name} holds {count_files(expected)} files, fingerprint {fingerprint(expected)}",
        holds=actual == expected,
        actual=difference(actual, expected),
    )
