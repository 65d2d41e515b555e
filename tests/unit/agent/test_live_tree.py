"""The agent finds by itself which tree is at its path, where the service cannot be reached."""

from pathlib import Path

import pytest

from wvs.agent import live_tree
from wvs.agent.live_tree import tree_at

TREE = "01kb6yav4te9gbxhnxd7x1tt1g.1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "live" / "root"
    root.mkdir(parents=True)
    return root


async def test_the_file_beside_the_root_names_the_tree(root: Path) -> None:
    (root.parent / "name").write_text(f"{TREE}\n")
    assert await tree_at(str(root)) == TREE


@pytest.mark.parametrize("content", [None, ""])
async def test_no_tree_is_known_without_a_name(root: Path, content: str | None) -> None:
    if content is not None:
        (root.parent / "name").write_text(content)
    assert await tree_at(str(root)) is None


async def test_a_volume_that_hangs_is_not_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415

    os.mkfifo(root.parent / "name")  # its open blocks, as one does on a volume that hangs
    monkeypatch.setattr(live_tree, "_TIMEOUT_S", 0.1)
    assert await tree_at(str(root)) is None
