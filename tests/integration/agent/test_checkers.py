"""The checker of the consistency tests finds each kind of breach."""

import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.agent.writing import PAGES, broken, prepare
from tests.skips import need_program


def _number(root: Path, name: str, value: int, at: int = 0) -> None:
    content = bytearray((root / name).read_bytes())
    content[at : at + 8] = struct.pack("Q", value)
    (root / name).write_bytes(bytes(content))


def _one_table_is_ahead(root: Path) -> None:
    with closing(sqlite3.connect(root / "accounts.db")) as database:
        database.executescript("insert into a values (1);")


def _without_a_page(root: Path) -> None:
    with closing(sqlite3.connect(root / "accounts.db")) as database:
        database.executescript("pragma wal_checkpoint(truncate);")
    content = (root / "accounts.db").read_bytes()
    (root / "accounts.db").write_bytes(content[:4096] + bytes(4096) + content[8192:])


def _without_an_object(root: Path) -> None:
    objects = [path for path in (root / "repository" / ".git" / "objects").glob("??/*") if path.is_file()]
    objects[0].unlink()


def _in_both_places(root: Path) -> None:
    shutil.copy(root / "left" / "token", root / "right" / "token")


BREACHES: dict[str, Callable[[Path], object]] = {
    "B before A": lambda root: _number(root, "second", 1),
    "A too far ahead of B": lambda root: _number(root, "first", 2),
    "mapping before the files": lambda root: _number(root, "mapped", 1),
    "end of the mapping before its begin": lambda root: _number(root, "mapped", 1, (PAGES - 1) * 4096),
    "file in no place": lambda root: (root / "left" / "token").unlink(),
    "file in both places": _in_both_places,
    "half a transaction": _one_table_is_ahead,
    "a page of the database lost": _without_a_page,
    "an object of the repository lost": _without_an_object,
    "a number that nobody committed": lambda root: (root / "repository" / "number").write_text("2"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "scratch").mkdir()
    prepare(tmp_path / "root")
    return tmp_path / "root"


def test_the_checker_accepts_a_tree_without_a_breach(root: Path) -> None:
    assert broken(root, root.parent / "scratch") == []


@pytest.mark.parametrize("breach", BREACHES)
def test_the_checker_finds_a_breach(root: Path, breach: str) -> None:
    if "repository" in breach or "committed" in breach:
        need_program("git")
    BREACHES[breach](root)
    assert len(broken(root, root.parent / "scratch")) >= 1


def test_the_program_keeps_its_invariants_at_every_moment(root: Path) -> None:
    """A program killed at any moment leaves the files that a snapshot of that moment would hold."""
    program = Path(sys.modules[broken.__module__].__file__ or "")
    for _ in range(3):
        running = subprocess.Popen(
            [sys.executable, str(program)], cwd=root, stdout=subprocess.PIPE, start_new_session=True
        )
        assert running.stdout is not None
        running.stdout.readline()
        subprocess.run(["sleep", "0.3"], check=True)
        subprocess.run(["kill", "-KILL", "--", f"-{running.pid}"], check=True)
        running.communicate()
        assert broken(root, root.parent / "scratch") == []
