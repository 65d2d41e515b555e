"""The base of all rules: the story of the example, and the choice of a workspace."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.property.platform.client import Answer, Request
from tests.property.platform.harness import Harness
from tests.property.platform.story import Story
from tests.property.platform.workspace_model import WorkspaceModel
from wvs.domain.ids import SNAPSHOT, parse_id

MOST_WORKSPACES = 3

# Every draw is a plain number or string, so that the same seed makes the same requests, however long processes take.
picks = st.integers(0, 1000)
flags = st.booleans()
seldom = st.integers(0, 99).map(lambda n: 40 <= n < 50)


class StoryMachine(RuleBasedStateMachine):
    """One example. All examples of a test share the `harness`."""

    harness: Harness

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(self.harness)

    def snapshot_now(self, at: int) -> None:
        """Requests a snapshot, also while tasks are open."""
        model = self.model(at)
        self.created(model, self.ask_for_snapshot(model))

    def ask_for_snapshot(self, model: WorkspaceModel) -> Answer:
        request = Request("POST", f"/v1/workspaces/{model.id}/snapshots", {"labels": {"step": str(self.harness.steps)}})
        return self.story.ask(model, request, model.answer_to_create())

    def created(self, model: WorkspaceModel, answer: Answer) -> None:
        if answer.status == 202:
            snapshot, task = answer.body["snapshot"]["id"], answer.body["task"]["id"]
            self.story.accept(model, task, "snapshot_create", snapshot)

    def model(self, at: int, *, patient: bool = False) -> WorkspaceModel:
        model = self.story.models[at % len(self.story.models)]
        if patient:
            self.with_directory(lambda: self.story.settle(model))
        return model

    def tree_of(self, model: WorkspaceModel, snapshot: str) -> Path:
        look = self.story.look(model)
        tree = look.workspace.snapshots[parse_id(SNAPSHOT, snapshot)].tree
        assert tree is not None
        return self.harness.disk.tree(look.workspace.id, tree)

    def unblock(self, snapshot: str) -> None:
        obstacle = self.story.blocked.pop(snapshot)
        if obstacle.exists():
            obstacle.rmdir()

    def with_directory(self, check: Callable[[], None]) -> None:
        """Runs `check`; if it fails, adds to the error where the logs are."""
        try:
            check()
        except BaseException as error:
            error.add_note(f"the trail and the logs of all processes are in {self.harness.directory}")
            raise
