"""A new engine is one class and one line in the table: nothing else knows the engines by name."""

import ast
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest
from tests.integration.executor.conftest import fresh_volume
from tests.integration.executor.platform import Platform

from wvs.engines.choice import ENGINES
from wvs.engines.copy import CopyEngine
from wvs.engines.volume.opening import init_volume
from wvs.postgres.pool import Pool

SOURCES = Path(__file__).parents[3] / "src/wvs"


class FifthEngine(CopyEngine):
    """As `copy`, but under a name that no other code has."""

    name = "fifth"
    counts_files = False
    freeze_budget_s = 12.0


async def test_a_fifth_engine_takes_a_snapshot_and_brings_it_back(
    pool: Pool, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, FifthEngine.name, FifthEngine)
    with fresh_volume(tmp_path) as beside:
        volume = beside.parent / "fifth"
        init_volume(str(volume), uuid.uuid4(), FifthEngine.name)
        async with Platform(pool, database_url, volume).hinting() as platform:
            await take_and_bring_back(platform)


async def take_and_bring_back(platform: Platform) -> None:
    async with platform.running():
        workspace_id = await platform.create()
        file = platform.live(workspace_id) / "file"
        file.write_text("first")
        snapshot_id = await platform.ready_snapshot(workspace_id)
        file.write_text("second")
        await platform.set_current(workspace_id, snapshot_id)
        assert (platform.live(workspace_id) / "file").read_text() == "first"
    row = await platform.pool.fetchrow("SELECT engine, files FROM wvs.snapshots WHERE id = $1", snapshot_id)
    assert row is not None
    assert tuple(row) == ("fifth", 1)


def test_the_operators_program_offers_a_fifth_engine(tmp_path: Path) -> None:
    script = f"""
        import sys
        from wvs.engines.choice import ENGINES
        from wvs.engines.copy import CopyEngine
        ENGINES["fifth"] = type("FifthEngine", (CopyEngine,), {{"name": "fifth"}})
        from wvs.cli.wvs.app import run
        sys.exit(run(["volume", "init", {str(tmp_path / "volume")!r}, "--engine", "fifth"]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "engine fifth" in done.stdout


def test_no_code_outside_an_engines_module_compares_its_name() -> None:
    found: list[str] = []
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare | ast.MatchValue):
                constants = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
                found += [f"{path}:{node.lineno}: {name}" for name in constants & set(ENGINES) - {path.stem}]
    assert found == []
