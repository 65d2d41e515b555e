import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wvs.domain.ids import format_id
from wvs.engines.errors import EngineError
from wvs.engines.volume.names import checked_tree, checked_workspace, is_tree_name, is_workspace_name, tree_name


def as_version_7(number: int) -> uuid.UUID:
    return uuid.UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 7 << 76 | 2 << 62)


uuids = st.integers(0, 2**128 - 1).map(as_version_7)


@given(uuids, st.integers(0, 2**63 - 1))
def test_every_generated_name_is_recognized(task: uuid.UUID, fence: int) -> None:
    assert is_tree_name(tree_name(task, fence))


@given(uuids, uuids, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_names_of_different_tasks_or_fences_differ(one: uuid.UUID, other: uuid.UUID, fence: int, later: int) -> None:
    assert (tree_name(one, fence) == tree_name(other, later)) == ((one, fence) == (other, later))


@given(st.text())
def test_a_recognized_name_is_one_plain_component(name: str) -> None:
    if is_tree_name(name) or is_workspace_name(name):
        assert name not in ("", ".", "..")
        assert not set(name) & set("/\0\n")


@given(uuids)
def test_the_id_of_a_workspace_is_its_name(workspace: uuid.UUID) -> None:
    assert checked_workspace(format_id("ws", workspace)) == format_id("ws", workspace)


@pytest.mark.parametrize(
    "name",
    ["", "..", "a/b", "01h455vb4pex5vsknk084sn02q", "01h455vb4pex5vsknk084sn02q.01", "01h455vb4pex5vsknk084sn02q.1\n"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(EngineError):
        checked_tree(name)
    with pytest.raises(EngineError):
        checked_workspace(name)
