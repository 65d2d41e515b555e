"""A command that lost its files is started again, whatever the session has learned meanwhile."""

import types
from typing import Any, cast

import pytest

from wvs.agent.protocol import Tree
from wvs.agent.session import Session
from wvs.agent.wrapper import Assignment, OnSwitch, _Wrapper

PATH = "/volume/ws_x/live/root"


def wrapper_whose_command_started_in(name: str | None, on_switch: OnSwitch = OnSwitch.RESTART) -> Any:
    wrapper = _Wrapper(
        Assignment(
            url="http://127.0.0.1:1", workspace="ws_x", argv=["true"], agent="a", report=print, on_switch=on_switch
        )
    )
    wrapper._session = cast("Session", types.SimpleNamespace(tree=Tree(PATH, 1, name), end_reason=None))
    wrapper._started_in = name
    return wrapper


@pytest.mark.parametrize("knows", [True, False])
async def test_a_command_that_ends_while_its_session_switches_has_lost_its_tree(
    knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = wrapper_whose_command_started_in("old")

    async def tree_at(_: str) -> str:
        if knows:
            wrapper._session.tree = Tree(PATH, 2, "new")
        return "new"

    monkeypatch.setattr("wvs.agent.wrapper.tree_at", tree_at)
    assert await wrapper._has_lost_its_tree()


@pytest.mark.parametrize(
    ("started_in", "on_switch", "shown"),
    [
        ("old", OnSwitch.RESTART, "old"),
        ("old", OnSwitch.RESTART, None),
        (None, OnSwitch.RESTART, "new"),
        ("old", OnSwitch.EXIT, "new"),
    ],
)
async def test_a_command_that_ends_in_its_own_tree_or_is_not_to_be_restarted_has_ended(
    started_in: str | None, on_switch: OnSwitch, shown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tree_at(_: str) -> str | None:
        return shown

    monkeypatch.setattr("wvs.agent.wrapper.tree_at", tree_at)
    assert not await wrapper_whose_command_started_in(started_in, on_switch)._has_lost_its_tree()
