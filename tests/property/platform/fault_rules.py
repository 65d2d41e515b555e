"""Rules that inject faults: processes are killed, stopped, drained and started, and directories disappear."""

import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.property.platform.request_rules import RequestRules
from tests.property.platform.story_machine import MOST_WORKSPACES, flags, picks, seldom
from wvs.domain.ids import SNAPSHOT, parse_id
from wvs.failpoints import NAMES

ACTIONS = ("kill", "kill", "stop", "error")


class FaultRules(RequestRules):
    """The faults."""

    @rule(pick=picks, after_ms=st.integers(0, 60), at=picks)
    def kill_an_executor(self, pick: int, after_ms: int, at: int) -> None:
        self.story.disturb()
        self.snapshot_now(at)
        self.story.note("kill an executor")
        time.sleep(after_ms / 1000)
        self.harness.working(pick).signal(signal.SIGKILL)

    @rule(at=picks, pick=picks, name=st.sampled_from(NAMES), action=st.sampled_from(ACTIONS), everywhere=flags)
    def break_in_the_middle(self, at: int, pick: int, name: str, action: str, everywhere: bool) -> None:
        """Arms a failpoint in one executor, or in all, and requests an operation that passes it."""
        model = self.model(at, patient=True)
        self.story.disturb()
        self.story.note(f"arm {name}={action} {everywhere}")
        if name.endswith(".cloning") and everywhere:
            action = "sleep:1"  # the clone takes a second, while everything else continues
        for executor in self.harness.processes.executors() if everywhere else [self.harness.working(pick)]:
            self.harness.arm(executor, f"{name}={action}@1")
        match name.partition(".")[0]:
            case "init" if len(self.story.models) < MOST_WORKSPACES:
                self.story.create_workspace()
            case "set":
                self.set_current(at, pick, reset=True, condition="none", patient=False)
            case "drop":
                self.drop(at, pick, patient=False)
            case "sweep":
                self.harness.sweep(failpoints=f"{name}={action}@1")
            case _:
                self.created(model, self.ask_for_snapshot(model))

    @rule()
    def start_an_executor(self) -> None:
        self.harness.wanted = min(3, self.harness.wanted + 1)

    @rule(pick=picks)
    def drain_an_executor(self, pick: int) -> None:
        self.harness.stop_one(pick)

    @rule()
    def let_stopped_executors_resume(self) -> None:
        self.story.disturb()
        self.harness.continue_all()

    @rule(kill=flags, in_flight=flags, at=picks)
    def restart_the_api(self, kill: bool, in_flight: bool, at: int) -> None:
        with ThreadPoolExecutor(1) as thread:
            asking = thread.submit(self.snapshot_now, at) if in_flight else None
            self.harness.restart_api(kill=kill)
            if asking is not None:
                asking.result()

    @rule(at=picks, pick=picks, really=seldom)
    def lose_a_snapshot(self, at: int, pick: int, really: bool) -> None:
        model = self.model(at, patient=True)
        snapshot = self.story.snapshot_of(model, pick, "ready")
        whole = snapshot is not None and snapshot not in self.story.damaged
        if really and snapshot is not None and whole and model.snapshots[snapshot]["state"] == "ready":
            self.story.note(f"lose {snapshot}")
            self.story.disturb()
            self.story.damaged.add(snapshot)
            self.harness.disk.excused.add(parse_id(SNAPSHOT, snapshot))
            shutil.rmtree(self.tree_of(model, snapshot).parent)

    @rule(at=picks, really=seldom)
    def lose_the_live_tree(self, at: int, really: bool) -> None:
        model = self.model(at, patient=True)
        look = self.story.look(model)
        ready = [s for s, facts in model.snapshots.items() if facts["state"] == "ready" and s not in self.story.damaged]
        if really and ready and model.live[-1] is not None and look.workspace.live_tree is not None:
            self.story.note("lose the live tree")
            self.story.disturb()
            shutil.rmtree(self.harness.disk.tree(look.workspace.id, look.workspace.live_tree).parent)
            model.wrote(None)

    @rule(at=picks, pick=picks)
    def block_a_drop(self, at: int, pick: int) -> None:
        model = self.model(at, patient=True)
        snapshot = self.story.snapshot_of(model, pick, "ready")
        usable = snapshot is not None and model.snapshots[snapshot]["state"] == "ready"
        if snapshot is not None and usable and snapshot not in self.story.damaged | self.story.blocked.keys():
            tree = self.tree_of(model, snapshot).parent
            obstacle = tree.parents[1] / "trash" / tree.name
            obstacle.mkdir()
            self.story.blocked[snapshot] = obstacle
