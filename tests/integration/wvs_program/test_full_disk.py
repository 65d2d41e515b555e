"""`wvs up` on one disk that another program fills to the last byte, again and again."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.integration.wvsctl.consoles import Wvsctl, serving

_DISK_MB = 700


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mounts = tmp_path / "mounts"
    mounts.mkdir()
    namespace = Namespace(mounts)
    try:
        yield filesystems.ext4(namespace, "disk", _DISK_MB)
    except Unavailable as error:
        pytest.skip(str(error))
    finally:
        namespace.close()


_FILL: Final = "while :; do cat /dev/zero 2>/dev/null || sleep 0.2; done"


@contextlib.contextmanager
def filling(path: Path) -> Iterator[None]:
    """A program of another user takes every byte that becomes free."""
    with path.open("ab") as file:
        filler = subprocess.Popen(["sh", "-c", _FILL], stdout=file, user=65534, group=65534, cwd="/")
    try:
        until(lambda: os.statvfs(path).f_bavail == 0, 120)
        yield
    finally:
        filler.kill()
        filler.wait()


def until(check: Callable[[], object], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, f"not within {seconds} s"
        time.sleep(0.1)


def refused_create(wvsctl: Wvsctl) -> str:
    """The message of the first write that needs a block that the disk does not have."""
    for number in range(50):
        result = wvsctl("workspace", "create", f"more-{number}", "--no-wait")
        if result.code != 0:
            return result.err
    raise AssertionError("no write needed a new block")


def test_a_full_disk_is_told_and_a_drop_works_and_the_reserve_is_rebuilt(disk: Path, tmp_path: Path) -> None:
    data, log = disk / "data", tmp_path / "log"
    reserve = data / "reserve"
    arguments = ("--data-dir", str(data), "--port", "0", "--engine", "copy")
    with serving("up", *arguments, environment={"WVS_EXECUTOR_METRICS_PORT": "0"}, log=log) as url:
        wvsctl = Wvsctl(url)
        wvsctl.ok("workspace", "create", "w")
        live = Path(wvsctl.ok("workspace", "path", "w").out.strip())
        (live / "base").write_bytes(os.urandom(60 << 20))
        snapshot = wvsctl.json("snapshot", "create", "w")["snapshot"]["id"]
        segments = data / "postgres" / "pg_wal"
        until(lambda: reserve.exists() and len(list(segments.glob("0*"))) >= 4, 60)
        whole = reserve.stat().st_size
        with filling(disk / "filler"):
            told = refused_create(wvsctl)
            assert "[DISK_FULL]" in told
            assert str(data) in told
            assert "wvsctl snapshot drop" in told
            dropped = wvsctl("snapshot", "drop", "w", snapshot, "--yes", "--wait-timeout", "60")
            assert dropped.code == 0, dropped
        (disk / "filler").unlink()
        until(lambda: reserve.stat().st_size == whole, 30)
        assert wvsctl("snapshot", "create", "w").code == 0
        assert wvsctl.ok("audit", "verify").code == 0
    assert "disk_nearly_full" in log.read_text()
    assert "wvs runbook disk-full" in log.read_text()


def test_a_server_that_ended_on_a_full_disk_starts_again_from_the_reserve(disk: Path, tmp_path: Path) -> None:
    data, log = disk / "data", tmp_path / "log"
    arguments = ("--data-dir", str(data), "--port", "0", "--engine", "copy")
    with serving("up", *arguments, environment={"WVS_EXECUTOR_METRICS_PORT": "0"}, log=log) as url:
        wvsctl = Wvsctl(url)
        wvsctl.ok("workspace", "create", "w")
        until((data / "reserve").exists, 30)
        whole = (data / "reserve").stat().st_size
        with filling(disk / "filler"):
            pass
        os.kill(server_of(data), signal.SIGKILL)
        until(lambda: wvsctl("workspace", "get", "w").code == 0, 60)
        assert (data / "reserve").stat().st_size < whole


def test_a_server_that_hangs_in_its_recovery_after_a_full_disk_is_ended_and_started_again(
    disk: Path, tmp_path: Path
) -> None:
    data, log = disk / "data", tmp_path / "log"
    arguments = ("--data-dir", str(data), "--port", "0", "--engine", "copy")
    with serving("up", *arguments, environment={"WVS_EXECUTOR_METRICS_PORT": "0"}, log=log) as url:
        wvsctl = Wvsctl(url)
        wvsctl.ok("workspace", "create", "w")
        segments = data / "postgres" / "pg_wal"
        until(lambda: (data / "reserve").exists() and len(list(segments.glob("0*"))) >= 4, 60)
        # The recovery reads this file if it is there, and hangs in opening a pipe that nobody writes to.
        pipe = data / "postgres" / "backup_label"
        os.mkfifo(pipe)
        os.chmod(pipe, 0o644)
        os.chown(pipe, pipe.parent.stat().st_uid, -1)
        with filling(disk / "filler"):
            pass
        server = server_of(data)
        os.kill(backends_of(server)[0], signal.SIGKILL)
        until(lambda: "database_hung_after_full_disk" in log.read_text(), 90)
        pipe.unlink()
        until(lambda: wvsctl("workspace", "get", "w").code == 0, 200)
        assert server_of(data) != server
    (hung,) = (line for line in log.read_text().splitlines() if "database_hung_after_full_disk" in line)
    assert str(server) in hung
    assert "database_restarted" in log.read_text()


def server_of(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().split()[0])


def backends_of(server: int) -> list[int]:
    """Processes that serve a connection of the role and database `wvs`."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [pid for pid in map(int, children) if b"postgres: wvs wvs" in Path(f"/proc/{pid}/cmdline").read_bytes()]
