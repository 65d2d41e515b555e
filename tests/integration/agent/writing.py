"""A program that changes files as fast as it can, from several processes, and keeps invariants across them.

`broken` checks the invariants. Run it as `python writing.py` in a live tree; it knows nothing of WVS.
"""

import mmap
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

PAGES = 8
GIT = shutil.which("git")


def prepare(root: Path) -> None:
    for name in ("left", "right"):
        (root / name).mkdir(exist_ok=True)
    (root / "right" / "token").unlink(missing_ok=True)
    (root / "left" / "token").write_text("the one")
    (root / "mapped").write_bytes(bytes(PAGES * mmap.PAGESIZE))
    for name in ("first", "second"):
        (root / name).write_bytes(bytes(8))
    with closing(sqlite3.connect(root / "accounts.db")) as database:
        database.execute("pragma journal_mode = wal")
        database.executescript("create table if not exists a (n integer); create table if not exists b (n integer);")
    if GIT:
        shutil.rmtree(root / "repository", ignore_errors=True)  # a repository left in mid-commit keeps its lock
        (root / "repository").mkdir()
        _git(root / "repository", "init", "--quiet")
        (root / "repository" / "number").write_text("0")
        _git(root / "repository", "add", "number")
        _git(root / "repository", "commit", "--quiet", "--message", "0")


def write_files(root: Path) -> None:
    """Writes A before B, a file that is always in one of two places, and counters at both ends of a shared mapping."""
    first, second, mapped = (os.open(root / name, os.O_RDWR) for name in ("first", "second", "mapped"))
    memory, last = mmap.mmap(mapped, PAGES * mmap.PAGESIZE), (PAGES - 1) * mmap.PAGESIZE
    places = (root / "left" / "token", root / "right" / "token")
    count = 0
    while True:
        count += 1
        number = struct.pack("Q", count)
        os.pwrite(first, number, 0)
        os.pwrite(second, number, 0)
        memory[:8] = number
        memory[last : last + 8] = number
        places[1 - count % 2].rename(places[count % 2])


def write_database(root: Path) -> None:
    """Writes two tables that always hold the same rows, through a write-ahead log."""
    with closing(sqlite3.connect(root / "accounts.db", isolation_level=None)) as database:
        database.execute("pragma synchronous = off")
        count = 0
        while True:
            count += 1
            emptied = "delete from a; delete from b;" if count % 2000 == 0 else ""  # or the table would grow for ever
            both = f"insert into a values ({count}); insert into b values ({count});"
            database.executescript(f"begin; {emptied} {both} commit;")


def write_repository(root: Path) -> None:
    """Writes a number to a file, commits it, and packs the repository every 100 commits."""
    repository = root / "repository"
    count = 0
    while True:
        count += 1
        (repository / "number").write_text(str(count))
        _git(repository, "commit", "--quiet", "--all", "--message", str(count))
        if count % 100 == 0:
            _git(repository, "gc", "--quiet", "--prune=now")


def _git(repository: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    options = [
        "-c",
        "user.name=writer",
        "-c",
        "user.email=writer@localhost",
        "-c",
        "gc.auto=0",
        "-c",
        "safe.directory=*",
    ]
    command = ["git", "-C", str(repository), *options, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def broken(root: Path, scratch: Path) -> list[str]:
    """The broken invariants of the snapshot at `root`."""
    found = [*_broken_files(root), *_broken_database(root, scratch)]
    if GIT and (root / "repository").is_dir():
        found += _broken_repository(root / "repository")
    return found


def _broken_files(root: Path) -> list[str]:
    found: list[str] = []
    first, second = (struct.unpack("Q", (root / name).read_bytes())[0] for name in ("first", "second"))
    if first - second not in (0, 1):
        found.append(f"first {first}, second {second}")
    content = (root / "mapped").read_bytes()
    begin, end = (struct.unpack_from("Q", content, at)[0] for at in (0, (PAGES - 1) * mmap.PAGESIZE))
    if begin - end not in (0, 1):
        found.append(f"mapping begins with {begin}, ends with {end}")
    if second - begin not in (0, 1):
        found.append(f"second {second}, mapping {begin}")
    if len([*root.glob("left/token"), *root.glob("right/token")]) != 1:
        found.append("the token is not in one place")
    return found


def _broken_database(root: Path, scratch: Path) -> list[str]:
    found: list[str] = []
    for name in ("accounts.db", "accounts.db-wal"):
        if (root / name).exists():
            (scratch / name).write_bytes((root / name).read_bytes())
    try:
        with closing(sqlite3.connect(scratch / "accounts.db")) as database:
            if database.execute("pragma integrity_check").fetchone() != ("ok",):
                found.append("the database is damaged")
            a, b = (database.execute(f"select count(*), max(n) from {table}").fetchone() for table in "ab")
            if a != b:
                found.append(f"a {a}, b {b}")
    except sqlite3.DatabaseError as error:
        found.append(f"the database: {error}")
    for file in scratch.iterdir():
        file.unlink()
    return found


def _broken_repository(repository: Path) -> list[str]:
    checked = _git(repository, "fsck", "--full", "--no-dangling", "--no-progress")
    if checked.returncode != 0:
        return [f"the repository: {checked.stdout.strip()} {checked.stderr.strip()}"[:300]]
    committed = _git(repository, "log", "-1", "--format=%s").stdout.strip()
    if not committed.isdecimal() or not (repository / "number").exists():
        return ["the repository has lost its last commit, or the file"]
    written = (repository / "number").read_text() or committed  # empty between truncation and write
    if int(written) - int(committed) not in (0, 1):
        return [f"the repository holds {written}, its last commit {committed}"]
    return []


if __name__ == "__main__":
    here = Path.cwd()
    prepare(here)
    os.write(1, b"ready\n")
    for write in (write_database, write_repository) if GIT else (write_database,):
        if os.fork() == 0:
            write(here)
    write_files(here)
    sys.exit(1)
