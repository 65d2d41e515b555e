"""The paths of a volume: as docs/engines.md lays them out, from a module that imports nothing else."""

import subprocess
import sys

from wvs.engines import paths

TREE = "01h455vb4pex5vsknk084sn02q.7"


def test_paths_are_where_the_layout_puts_them() -> None:
    assert paths.current_path("/srv", "ws_1") == "/srv/ws_1/current"
    assert paths.live_root_path("/srv", "ws_1") == "/srv/ws_1/live/root"
    assert paths.tree_path("/srv/ws_1", TREE) == f"/srv/ws_1/trees/{TREE}"
    assert paths.trashed_path("/srv/ws_1", TREE) == f"/srv/ws_1/trash/{TREE}"
    assert paths.lock_path("/srv") == "/srv/.wvs/volume.lock"
    assert paths.quarantine_path("ws_1", "0-stranger") == ".wvs/quarantine/ws_1/0-stranger"


def test_the_file_with_the_name_is_beside_the_root() -> None:
    assert paths.name_beside(paths.live_root_path("/srv", "ws_1")) == "/srv/ws_1/live/name"


def test_the_module_imports_nothing_else_of_the_engines() -> None:
    loaded = "import sys, wvs.engines.paths; print(*[m for m in sys.modules if m.startswith(('wvs.', 'ctypes'))])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["wvs.engines", "wvs.engines.paths"]
