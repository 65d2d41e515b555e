"""What is flushed before a session acknowledges a freeze, and what a failure means."""

import errno
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wvs.agent import CannotFreeze, flushing
from wvs.agent.flushing import Flusher

HOLDING = """
import mmap, os, sys
writing, reading, deleted = open("writing", "w"), open("reading"), open("deleted", "w")
shared, private = open("shared", "r+b"), open("private", "r+b")
held = mmap.mmap(shared.fileno(), 4096), mmap.mmap(private.fileno(), 4096, mmap.MAP_PRIVATE)
os.unlink("deleted"); shared.close(); private.close()
print("ready", flush=True); sys.stdin.read()
"""


def test_a_failed_flush_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flusher = Flusher(str(tmp_path))
    assert flusher.flush(lambda: [os.getpid()]) == "ok"

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(flushing, "sync_filesystem", fails)
        with pytest.raises(CannotFreeze, match="Input/output error"):
            flusher.flush(list)
    with pytest.raises(CannotFreeze, match="Input/output error"):
        flusher.flush(list)
    flusher.close()


def test_files_that_a_process_may_have_written_are_found_by_descriptor_and_by_mapping(tmp_path: Path) -> None:
    for name in ("reading", "shared", "private"):
        (tmp_path / name).write_bytes(bytes(mmap.PAGESIZE))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    found = list(flushing._files_written_by(holder.pid, tmp_path.stat().st_dev))
    names = {os.path.realpath(path) for path in found if path.startswith("/proc")}
    assert {str(tmp_path / "writing"), str(tmp_path / "deleted") + " (deleted)"} <= names
    assert str(tmp_path / "reading") not in names
    assert [path for path in found if path.startswith(str(tmp_path))] == [str(tmp_path / "shared")]
    for path in found:
        if not path.startswith("/usr"):
            flushing._fsync(path)
    holder.communicate()
    assert list(flushing._files_written_by(holder.pid, tmp_path.stat().st_dev)) == []


def test_a_mapped_file_is_found_whatever_its_name_holds(tmp_path: Path) -> None:
    """The kernel's list of mappings escapes the line feed only."""
    names = ["carriage\rreturn", "line\nfeed", "next\x85line", "line\u2028separator", " blanks ", "back\\slash"]
    held: list[mmap.mmap] = []
    for name in names:
        (tmp_path / name).write_bytes(bytes(mmap.PAGESIZE))
        with (tmp_path / name).open("r+b") as file:
            held.append(mmap.mmap(file.fileno(), mmap.PAGESIZE))
    found = set(flushing._files_mapped_shared_by(os.getpid()))
    assert {str(tmp_path / name) for name in names} <= found
    for mapped in held:
        mapped.close()


def test_a_mapped_file_whose_directory_was_replaced_by_a_file_is_skipped(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "shared").write_bytes(bytes(mmap.PAGESIZE))
    with (directory / "shared").open("r+b") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE):
        file.close()
        shutil.rmtree(directory)
        directory.write_text("a file of that name")
        found = list(flushing._files_written_by(os.getpid(), tmp_path.stat().st_dev))
    assert not any("shared" in path for path in found)


def test_a_tree_that_cannot_be_opened_raises_cannot_freeze(tmp_path: Path) -> None:
    with pytest.raises(CannotFreeze, match="No such file"):
        Flusher(str(tmp_path / "absent"))
