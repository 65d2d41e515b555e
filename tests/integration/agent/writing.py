"""A program that keeps invariants across files as fast as it can, from two processes; `broken` looks for a breach.

Run as `python writing.py` in a live tree; it knows nothing of WVS.
"""

import mmap
import os
import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path

PAGES = 8


def prepare(root: Path) -> None:
    for name in ("left", "right"):
        (root / name).mkdir(exist_ok=True)
    (root / "left" / "token").write_text("the one")
    (root / "mapped").write_bytes(bytes(PAGES * mmap.PAGESIZE))
    for name in ("first", "second"):
        (root / name).write_bytes(bytes(8))
    with closing(sqlite3.connect(root / "accounts.db")) as database:
        database.execute("pragma journal_mode = wal")
        database.executescript("create table a (n integer); create table b (n integer);")


def write_files(root: Path) -> None:
    """A before B, a file that is always in one of two places, and counters at both ends of a shared mapping."""
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
    """Two tables that always hold the same, in a write-ahead log."""
    with closing(sqlite3.connect(root / "accounts.db", isolation_level=None)) as database:
        database.execute("pragma synchronous = off")
        count = 0
        while True:
            count += 1
            database.executescript(f"begin; insert into a values ({count}); insert into b values ({count}); commit;")


def broken(root: Path, scratch: Path) -> list[str]:
    """What does not hold in the snapshot at `root`."""
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
    for name in ("accounts.db", "accounts.db-wal"):
        (scratch / name).write_bytes((root / name).read_bytes())
    with closing(sqlite3.connect(scratch / "accounts.db")) as database:
        if database.execute("pragma integrity_check").fetchone() != ("ok",):
            found.append("the database is damaged")
        a, b = (database.execute(f"select count(*), max(n) from {table}").fetchone() for table in "ab")
        if a != b:
            found.append(f"a {a}, b {b}")
    for file in scratch.iterdir():
        file.unlink()
    return found


if __name__ == "__main__":
    here = Path.cwd()
    prepare(here)
    os.write(1, b"ready\n")
    if os.fork() == 0:
        write_database(here)
    write_files(here)
    sys.exit(1)
