"""The paths of a volume: as docs/engines.md lays them out, from a module that imports nothing else."""

import subprocess
import sys

import pytest

from wvs.engines import paths

TREE = "01h455vb4pex5vsknk084sn02q.7"


def test_paths_are_where_the_layout_puts_them() -> None:
    assert paths.current_path("/srv", "ws_1") == "/srv/ws_1/current"
    assert paths.tree_root_path("/srv", "ws_1", TREE) == f"/srv/ws_1/trees/{TREE}/root"
    assert paths.trashed_path("/srv/ws_1", TREE) == f"/srv/ws_1/trash/{TREE}"
    assert paths.lock_path("/srv") == "/srv/.wvs/volume.lock"
    assert paths.quarantine_path("ws_1", "0-stranger") == ".wvs/quarantine/ws_1/0-stranger"


def test_the_link_is_found_from_the_tree_that_it_leads_to() -> None:
    assert paths.current_beside(paths.tree_root_path("/srv", "ws_1", TREE)) == paths.current_path("/srv", "ws_1")


def test_a_link_names_its_tree() -> None:
    assert paths.tree_of_link(paths.link_target(TREE)) == TREE


@pytest.mark.parametrize("target", ["", "trees", f"trees/{TREE}", f"/trees/{TREE}/root", f"trash/{TREE}/root", "a/b/c"])
def test_a_link_of_another_form_names_no_tree(target: str) -> None:
    assert paths.tree_of_link(target) is None


def test_the_module_imports_nothing_else_of_the_engines() -> None:
    loaded = "import sys, wvs.engines.paths; print(*[m for m in sys.modules if m.startswith(('wvs.', 'ctypes'))])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["wvs.engines", "wvs.engines.paths"]
