"""Which live tree the link of a workspace leads to, and what is no live tree."""

from pathlib import Path

import pytest

from wvs.agent.live_link import linked_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "ws" / "trees" / "one" / "root"
    root.mkdir(parents=True)
    return root


async def test_the_link_leads_to_another_tree_of_the_workspace(tree: Path) -> None:
    other = tree.parents[1] / "two" / "root"
    other.mkdir(parents=True)
    (tree.parents[2] / "current").symlink_to("trees/two/root")
    assert await linked_tree(str(tree)) == str(other)


@pytest.mark.parametrize("target", [None, "elsewhere", "elsewhere/root", "trees/two", "gone"])
async def test_what_a_program_put_in_the_place_of_the_link_is_no_live_tree(tree: Path, target: str | None) -> None:
    """An agent would otherwise leave its tree for a directory that no freeze and no snapshot knows."""
    workspace = tree.parents[2]
    (workspace / "elsewhere" / "root").mkdir(parents=True)
    (workspace / "trees" / "two").mkdir()
    current = workspace / "current"
    if target is None:
        current.mkdir()
    else:
        current.symlink_to(target)
    assert await linked_tree(str(tree)) is None
