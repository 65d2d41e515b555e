"""Directives that a correct service would not send in this order."""

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest

from wvs.agent.errors import Rejected
from wvs.agent.hooks import Hooks
from wvs.agent.protocol import DirectiveDocument, Instruction, RegistrationDocument, SessionIds
from wvs.agent.session import Session
from wvs.agent.transport import AgentTransport

CONFIRM = {"number": 3, "kind": Instruction.CONFIRM, "epoch": 1, "member": True, "budget_s": 10.0}


class Script:
    """Replaces the transport: answers with the next directive, and records the acknowledgements."""

    def __init__(self, *directives: DirectiveDocument) -> None:
        self._directives = list(directives)
        self.acks: list[dict[str, Any]] = []
        self.is_over = asyncio.Event()

    async def call(self, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        if body is not None:
            self.acks.append(body)
        if method == "DELETE":
            return {}
        if not self._directives:
            self.is_over.set()
            await asyncio.Event().wait()
        return self._directives.pop(0)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("changes", "resumes"),
    [({}, True), ({"tree": "another"}, False), ({"freeze": 8}, False), ({"resume": False}, False)],
)
async def test_an_agent_resumes_early_only_from_its_own_freeze_in_its_own_tree(
    changes: dict[str, Any], resumes: bool, tmp_path: Path
) -> None:
    root = tmp_path / "ws" / "trees" / "tree" / "root"
    root.mkdir(parents=True)
    runs = asyncio.Event()
    runs.set()

    async def on_freeze() -> None:
        runs.clear()

    async def on_thaw() -> None:
        runs.set()

    async def on_switch(_tree: object) -> None:
        raise AssertionError("there is no switch in this script")

    run = DirectiveDocument(number=1, kind=Instruction.RUN, epoch=1, path=str(root), tree="one")
    freeze = DirectiveDocument(
        number=2, kind=Instruction.FREEZE, epoch=1, freeze=7, member=True, budget_s=10.0, path=str(root), tree="one"
    )
    asked = {**CONFIRM, "freeze": 7, "resume": True, "path": str(root), "tree": "one", **changes}
    script = Script(freeze, DirectiveDocument(**asked))
    hooks = Hooks(on_freeze=on_freeze, on_thaw=on_thaw, on_switch=on_switch)
    session = Session(
        cast("AgentTransport", script), RegistrationDocument(SessionIds("sess_x", "ws_x"), run), hooks, 30.0
    )
    session.follow()
    async with asyncio.timeout(20):
        await script.is_over.wait()
    assert runs.is_set() is resumes
    assert [ack["kind"] for ack in script.acks] == ["frozen", "still_frozen"]
    assert script.acks[0]["token"] == script.acks[1]["token"]
    await session.stop_following()
    await session.leave()


class SlowLook(Script):
    """Confirms a freeze as soon as the session looks at its host. `moments`: asked, resumed or answered."""

    def __init__(self, *directives: DirectiveDocument) -> None:
        super().__init__(*directives)
        self.is_looking = asyncio.Event()
        self.moments: list[float] = []

    async def call(self, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        if body is not None:
            if body["kind"] == "frozen":
                await self.is_looking.wait()
            self.moments.append(time.monotonic())
        return await super().call(method, path, answer, body)

    async def resumed(self) -> None:
        self.moments.append(time.monotonic())


@pytest.mark.parametrize("resume", [True, False], ids=["snapshot", "current_set"])
async def test_a_slow_look_at_the_host_does_not_keep_the_agent_still(
    resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "ws" / "live" / "root"
    root.mkdir(parents=True)
    place: dict[str, Any] = {"path": str(root), "tree": "one"}
    run = DirectiveDocument(number=1, kind=Instruction.RUN, epoch=1, **place)
    asked: dict[str, Any] = {
        "freeze": 7,
        "member": True,
        "budget_s": 10.0,
        "looked_from": "the executor's host",
        **place,
    }
    freeze = DirectiveDocument(number=2, kind=Instruction.FREEZE, epoch=1, **asked)
    script = SlowLook(freeze, DirectiveDocument(**{**CONFIRM, **asked, "resume": resume}))
    loop = asyncio.get_running_loop()

    def look(*_: object) -> dict[str, Any]:
        loop.call_soon_threadsafe(script.is_looking.set)
        time.sleep(1.0)
        return {"hidden_mounts": [{"place": "build", "filesystem": "tmpfs"}]}

    monkeypatch.setattr("wvs.agent.freeze_state.observe", look)

    async def nothing(*_: object) -> None:
        pass

    session = Session(
        cast("AgentTransport", script),
        RegistrationDocument(SessionIds("sess_x", "ws_x"), run),
        Hooks(on_freeze=nothing, on_thaw=script.resumed, on_switch=nothing),
        30.0,
    )
    session.follow()
    async with asyncio.timeout(20):
        await script.is_over.wait()
    assert script.moments[1] - script.moments[0] < 0.5
    assert script.acks[-1]["kind"] == "still_frozen"
    assert ("hidden_mounts" in script.acks[-1]) is resume, "a snapshot waits for the look: its agent runs again"
    await session.stop_following()
    await session.leave()


class Stripped(Script):
    """A way to the service on which the header with the secret is lost."""

    async def call(self, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        if not self._directives:
            raise Rejected(403, "SESSION_SECRET_INVALID", "The request has no session secret.", "Send it.")
        return await super().call(method, path, answer, body)


async def test_an_agent_whose_secret_does_not_arrive_stops_with_the_reason_and_never_stays_frozen(
    tmp_path: Path,
) -> None:
    """Its session could answer no freeze: every snapshot would time out, and the agent would not know why."""
    root = tmp_path / "ws" / "trees" / "tree" / "root"
    root.mkdir(parents=True)
    calls: list[str] = []

    async def on_freeze() -> None:
        calls.append("freeze")

    async def on_thaw() -> None:
        calls.append("thaw")

    async def on_switch(_tree: object) -> None:
        raise AssertionError("there is no switch in this script")

    run = DirectiveDocument(number=1, kind=Instruction.RUN, epoch=1, path=str(root), tree="one")
    freeze = DirectiveDocument(
        number=2, kind=Instruction.FREEZE, epoch=1, freeze=7, budget_s=-4.9, path=str(root)
    )  # the freeze ends at once
    hooks = Hooks(on_freeze=on_freeze, on_thaw=on_thaw, on_switch=on_switch)
    registration = RegistrationDocument(SessionIds("sess_x", "ws_x"), run)
    session = Session(cast("AgentTransport", Stripped(freeze)), registration, hooks, 30.0)
    session.follow()
    async with asyncio.timeout(20):
        with pytest.raises(Rejected, match="no session secret"):
            await session.until_ended()
    assert calls == ["freeze", "thaw"]
