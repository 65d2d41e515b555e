"""When `wvs up` ends a server that refuses connections after a full disk, and when it lets it recover."""

import asyncio
import itertools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from wvs.cli.wvs import disk_guard
from wvs.cli.wvs.disk_guard import DiskGuard
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.reserve import DiskReserve

_PATIENCE_S = 0.5


class RefusingServer:
    """In the place of a server that is in its recovery: a process that lives until it is ended, and ends at once."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.reserve = DiskReserve(data_dir)
        self.ended_at: list[float] = []
        self.process = self._started()

    @property
    def pid(self) -> int:
        if self.process.poll() is not None:
            self.ended_at.append(time.monotonic())
            self.process = self._started()
        return self.process.pid

    def url(self) -> str:
        return "postgresql://"

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "60"])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingServer]:
    monkeypatch.setattr(disk_guard, "RECOVERY_S", _PATIENCE_S)
    monkeypatch.setattr(disk_guard, "GUARD_EVERY_S", 0.05)
    monkeypatch.setattr(disk_guard, "START_BYTES", 1 << 60)  # the disk is full
    monkeypatch.setattr(DiskReserve, "fill", lambda _self: False)
    refusing = RefusingServer(tmp_path)
    yield refusing
    refusing.process.kill()
    refusing.process.wait()


async def guarded(server: RefusingServer, refusal: Exception, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise refusal

    monkeypatch.setattr(disk_guard, "connect", refuse)
    ending = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, ending.set)
    await DiskGuard(cast("EmbeddedPostgres", server)).run(ending)


async def test_each_recovery_gets_twice_the_time_of_the_one_before(
    server: RefusingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    await guarded(server, asyncpg.CannotConnectNowError("in recovery"), monkeypatch, 9 * _PATIENCE_S)
    ends = [began, *server.ended_at]
    times = [after - before for before, after in itertools.pairwise(ends)]
    assert len(times) in (2, 3), "a fixed patience would have ended eight of them"
    assert all(time >= _PATIENCE_S * 2**number for number, time in enumerate(times))


async def test_a_server_without_free_connections_works_and_is_not_ended(
    server: RefusingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guarded(server, asyncpg.TooManyConnectionsError("too many clients"), monkeypatch, 4 * _PATIENCE_S)
    assert server.process.poll() is None
    assert not server.ended_at
