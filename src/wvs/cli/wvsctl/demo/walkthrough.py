"""The story that `wvsctl demo` tells, step by step, and what each step must come out to."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

import wvs
from wvs.cli.wvsctl.api.documents import CertificateDocument
from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.audit import event_sentences
from wvs.cli.wvsctl.audit.documents import EventDocument
from wvs.cli.wvsctl.demo.context import WORKSPACE, Stage
from wvs.cli.wvsctl.demo.crash import executor_killed_in_mid_clone
from wvs.cli.wvsctl.demo.freezing import program_is_frozen, program_that_will_not_freeze
from wvs.cli.wvsctl.demo.narrator import Teller
from wvs.cli.wvsctl.demo.projections import rebuilt_and_compared
from wvs.cli.wvsctl.demo.tampering import forgery_found_out
from wvs.cli.wvsctl.demo.tree_walk import Tree, difference, files_of, fingerprint, walk
from wvs.cli.wvsctl.output.certificate import in_words

Step: TypeAlias = Callable[["Story"], None]

_NO_SOURCE: Final = ("__pycache__", "*.pyc", ".*", "node_modules")


class Story:
    """The stage, and what earlier steps left for later ones."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.first = ""
        self.second = ""
        self.content: Tree = {}

    @property
    def teller(self) -> Teller:
        return self.stage.teller


def create(story: Story) -> None:
    """A workspace is made; its live tree is empty."""
    with story.teller.step("A workspace is made"):
        workspace = story.stage.wvsctl("workspace", "create", WORKSPACE).document["workspace"]
        story.stage.link = Path(workspace["path"])
        story.teller.proves("it is active", holds=workspace["state"] == "active", instead=workspace["state"])
        story.teller.proves(
            f"its live tree is there, and empty: {workspace['path']}", holds=walk(story.stage.link) == {}
        )


def write(story: Story) -> None:
    """Real work: this project's own source tree is copied into the live tree."""
    with story.teller.step("An agent works: it copies a source tree into the live tree"):
        source = source_tree()
        path = story.stage.wvsctl("workspace", "path", WORKSPACE).document["path"]
        story.teller.does(f"{source} is copied to project/ in it, without caches")
        shutil.copytree(source, Path(path) / "project", symlinks=True, ignore=shutil.ignore_patterns(*_NO_SOURCE))
        story.content = walk(story.stage.link)
        files = files_of(story.content)
        story.teller.proves(f"{files} files, fingerprint {fingerprint(story.content)}", holds=files > 50)


def snapshot(story: Story) -> None:
    """The first snapshot, with its proof, compared with the live tree by an independent walk."""
    with story.teller.step("A snapshot is taken"):
        story.first = take(story, "first")
        _holds_what(story, story.first, story.content)


def write_on(story: Story) -> None:
    """The agent writes on, and a second snapshot holds that and leaves the first as it was."""
    with story.teller.step("The agent writes on, and another snapshot is taken"):
        project = story.stage.link / "project"
        victim = next(path for path in sorted(project.rglob("*.py")) if path.stat().st_size > 0)
        victim.write_text("# spoiled\n")
        shutil.rmtree(next(path for path in sorted(project.iterdir(), reverse=True) if path.is_dir()))
        (project / "notes.txt").write_text("new\n")
        changed = walk(story.stage.link)
        story.teller.does("one file overwritten, one directory removed, one file added")
        story.second = take(story, "second")
        _holds_what(story, story.second, changed)
        story.teller.proves("which is not what the first holds", holds=bool(difference(changed, story.content)))
        _holds_what(story, story.first, story.content)


def go_back(story: Story) -> None:
    """The live tree is made afresh from the first snapshot."""
    with story.teller.step("The workspace is set back to the first snapshot"):
        before = story.stage.link.resolve()
        document = story.stage.wvsctl("current", "set", WORKSPACE, story.first).document
        story.teller.proves("the task succeeded", holds=document["task"]["state"] == "succeeded")
        story.teller.proves("current is the first snapshot", holds=document["current"]["snapshot_id"] == story.first)
        story.teller.proves("the link leads to a new directory", holds=story.stage.link.resolve() != before)
        _same(story, "the live tree", walk(story.stage.link), story.content)


def no_op(story: Story) -> None:
    """Setting what is set does nothing."""
    with story.teller.step("It is set to the same snapshot again"):
        before = story.stage.link.resolve()
        task = story.stage.wvsctl("current", "set", WORKSPACE, story.first).document["task"]
        story.teller.proves("a no-op: no freeze, no clone", holds=task["noop"] and task["attempt"] == 0)
        story.teller.proves("the live tree is the same directory", holds=story.stage.link.resolve() == before)


def refused_drop(story: Story) -> None:
    """What is current cannot be dropped."""
    with story.teller.step("A drop of the current snapshot is refused"):
        ran = story.stage.wvsctl("snapshot", "drop", WORKSPACE, story.first, "--yes", told=Exit.CONFLICT)
        story.teller.shows(ran.messages.partition("wvsctl: ")[2])
        blockers = ran.document["blockers"]
        story.teller.proves("exit code 5, and the blocker is named", holds=blockers == [{"kind": "current"}])
        _holds_what(story, story.first, story.content)


def drop(story: Story) -> None:
    """What nobody needs can be dropped: the directory goes first, the record stays."""
    with story.teller.step("The other snapshot is dropped"):
        tree = story.stage.tree_of(story.second)
        story.teller.does(f"its directory is {tree}")
        story.teller.proves("which is there", holds=tree.is_dir())
        dropped = story.stage.wvsctl("snapshot", "drop", WORKSPACE, story.second, "--yes").document["snapshot"]
        story.teller.proves("the snapshot is dropped, and says when", holds=bool(dropped["deleted_at"]))
        story.teller.proves("the directory is gone", holds=not tree.exists() and not tree.parent.exists())


def audit(story: Story) -> None:
    """Every event, in order, with nothing missing: who did what."""
    with story.teller.step("The audit has every event"):
        events = story.stage.events()
        for event in events:
            told = event_sentences.in_words(msgspec.convert(event, EventDocument))
            story.teller.shows(f"{event['version']:3}  {event['occurred_at'][11:23]}  {event['actor']} {told}")
        versions = [event["version"] for event in events]
        story.teller.proves("numbered without a gap", holds=versions == list(range(versions[0], len(events) + 1)))
        types = [event["type"] for event in events if not event["type"].startswith("task.")]
        story.teller.proves("and what happened is what was told", holds=types == list(TOLD), instead=types)


STEPS: Final[Sequence[Step]] = (
    create,
    write,
    snapshot,
    write_on,
    go_back,
    no_op,
    refused_drop,
    drop,
    lambda story: program_is_frozen(story.stage),
    lambda story: program_that_will_not_freeze(story.stage),
    lambda story: executor_killed_in_mid_clone(story.stage),
    audit,
    lambda story: forgery_found_out(story.stage),
    lambda story: rebuilt_and_compared(story.stage),
)

TOLD: Final = (
    "workspace.created.v1",
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
    """This project's checkout, or the installed package where there is none."""
    package = Path(wvs.__file__).parent
    checkout = package.parents[1]
    return checkout if (checkout / "pyproject.toml").exists() else package


def take(story: Story, message: str) -> str:
    """Take a snapshot, show its certificate, and give its id."""
    document = story.stage.wvsctl("snapshot", "create", WORKSPACE, "--message", message).document
    made = document["snapshot"]
    story.teller.proves(f"{made['id']} is ready", holds=made["state"] == "ready", instead=made["state"])
    certificate = story.stage.certificate_of(made)
    story.teller.shows("\n".join(in_words(certificate)))
    story.teller.proves("its stamps are equal", holds=_is_proof(certificate))
    return str(made["id"])


def _is_proof(certificate: CertificateDocument) -> bool:
    return bool(certificate.stamp_before) and certificate.stamp_before == certificate.stamp_after


def _holds_what(story: Story, snapshot_id: str, content: Tree) -> None:
    _same(story, f"{snapshot_id}", walk(story.stage.tree_of(snapshot_id)), content)


def _same(story: Story, what: str, found: Tree, wanted: Tree) -> None:
    story.teller.proves(
        f"{what} holds {files_of(wanted)} files with fingerprint {fingerprint(wanted)}",
        holds=found == wanted,
        instead=difference(found, wanted),
    )
