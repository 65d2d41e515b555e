"""The service without root: it notes what it cannot keep, an unreadable file is an error, no right is granted."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.skips import need_root

_UID = 65534

SCRIPT = """
import os, sys, uuid
sys.path[:0] = sys.argv[3:]
from wvs.engines.volume.opening import init_volume, open_volume
from wvs.engines.errors import EngineError
from tests.integration.engines.conftest import Bench, attempt
# What Python loads late it must load now: another user may not reach this installation.
init_volume(sys.argv[1] + f"/as-root-{os.getpid()}", uuid.uuid4(), "copy")
warm = Bench(open_volume(sys.argv[1] + f"/as-root-{os.getpid()}"))
warm.purge(warm.clone(warm.live()))
attempt(lambda: warm.clone(warm.new_name()))
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
if not os.path.exists(sys.argv[1] + "/volume"):
    init_volume(sys.argv[1] + "/volume", uuid.uuid4(), "copy")
bench = Bench(open_volume(sys.argv[1] + "/volume"))
source = bench.live()
root = bench.path(source)
exec(sys.stdin.read())
"""


def run_as_nobody(directory: Path, script: str) -> str:
    need_root("becoming another user")
    here = Path.cwd()
    os.chown(directory, _UID, _UID)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, directory, str(_UID), here, here / "src"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that another user can reach.

    It is not below pytest's own: every run of pytest that starts on the machine closes `/tmp/pytest-of-<user>` to other
    users (`TempPathFactory.getbasetemp`), and so took the directory away from the process under test.
    """
    directory = Path(tempfile.mkdtemp(prefix="wvs-unprivileged-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_an_unreadable_file_is_an_error_that_names_it(open_directory: Path) -> None:
    script = """
(root / "closed").write_bytes(b"x")
(root / "closed").chmod(0)
error = attempt(lambda: bench.clone(source))
print(error.code, error.retryable)
print(error.detail.replace(str(root), "ROOT"))
print(error.hint)
"""
    said, detail, hint = run_as_nobody(open_directory, script).splitlines()
    assert said == "CLONE_FAILED False"
    assert detail == "the service (uid 65534) may not read closed (uid 65534, mode 0000) (in ROOT)"
    assert "WVS_UNREADABLE=skip" in hint


def test_directories_that_even_their_owner_cannot_enter_are_removed(open_directory: Path) -> None:
    script = """
deep = root
for level in range(100):
    deep = deep / "d"
    deep.mkdir()
    (deep / "file").touch()
for directory, _, _ in os.walk(root, topdown=False):
    os.chmod(directory, 0)
bench.purge(source)
print(bench.volume.trash(bench.workspace))
"""
    assert run_as_nobody(open_directory, script).strip() == "[]"


def test_a_clone_keeps_directories_that_are_read_only(open_directory: Path) -> None:
    script = """
(root / "dir" / "below").mkdir(parents=True)
(root / "dir" / "below" / "file").write_text("content")
(root / "dir" / "below").chmod(0o555)
(root / "dir").chmod(0o500)
result_tree = bench.path(bench.clone(source))
print(oct((result_tree / "dir").stat().st_mode & 0o7777), (result_tree / "dir" / "below" / "file").read_text())
"""
    assert run_as_nobody(open_directory, script).split() == ["0o500", "content"]


def test_another_owner_is_noted_and_its_set_id_bits_are_not_kept(open_directory: Path) -> None:
    made = run_as_nobody(open_directory, "print(source, bench.workspace)").split()
    name, workspace = made
    root = open_directory / "volume" / workspace / "trees" / name / "root"
    (root / "program").write_bytes(b"x")
    (root / "program").chmod(0o4755)
    script = f"""
source, bench.workspace = {name!r}, {workspace!r}
target = bench.intend()
result = bench.volume.clone(bench.workspace, source, target)
print([(note.what, note.count, note.example) for note in result.notes])
print(oct((bench.path(target) / "program").stat().st_mode & 0o7777))
"""
    notes, mode = run_as_nobody(open_directory, script).splitlines()
    assert notes == "[('owner', 1, 'program')]"
    assert mode == "0o755"
