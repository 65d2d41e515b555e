"""Databases and servers in the live tree: snapshotted under load, restored, started again, and checked."""

import asyncio
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from uuid import UUID

from tests.integration.agent.conftest import Service, Wrapped, until
from tests.integration.agent.in_the_tree import __file__ as programs
from tests.integration.agent.servers import postgres_for
from tests.integration.agent.tools import pyright_language_server, python_packages, vite
from tests.skips import need_program

from wvs.domain.states import TaskState


async def words_after(wrapped: Wrapped, first: str) -> list[str]:
    """The other words of the next line that begins with `first`."""
    while True:
        line = await wrapped.line()
        assert line, await wrapped.ended()
        if line.split()[0] == first:
            return line.split()[1:]


async def restore(service: Service, snapshot_id: UUID) -> None:
    assert await service.platform.set_current(service.workspace_id, snapshot_id, reset=True) is TaskState.SUCCEEDED


async def snapshot(service: Service) -> UUID:
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    return snapshot_id


class Progress:
    """What a program has committed, as it says itself in a file outside of the tree."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def now(self) -> int:
        return int(self.path.read_text()) if self.path.exists() else 0

    async def grows(self, by: int = 50) -> int:
        least = self.now() + by
        await until(lambda: self.now() >= least)
        return self.now()


async def test_postgres_keeps_what_was_committed_and_its_indexes_agree(service: Service) -> None:
    with postgres_for(service) as postgres:
        wrapped = await service.shell(postgres.script)
        assert await wrapped.line() == "up"
        progress = Progress(postgres.progress)
        committed = await progress.grows()
        snapshot_id = await snapshot(service)
        await progress.grows()
        await restore(service, snapshot_id)
        assert await wrapped.line() == "up", postgres.log()
        assert int(postgres.query(f"select count(*) from ledger where id <= {committed}")) == committed
        postgres.check()
        (service.live / "stop").touch()
        assert (await wrapped.ended())[0] == 0


async def test_sqlite_with_a_write_ahead_log_keeps_what_was_committed(service: Service, tmp_path: Path) -> None:
    progress = Progress(tmp_path / "progress")
    wrapped = await service.run(sys.executable, programs, "sqlite", str(progress.path))
    assert await words_after(wrapped, "up") == ["ok", "0", "0"]
    committed = await progress.grows()
    snapshot_id = await snapshot(service)
    assert (await service.tree(snapshot_id) / "base.db-wal").stat().st_size > 0, "the log is not part of this test"
    await progress.grows()
    await restore(service, snapshot_id)
    faults, first, second = await words_after(wrapped, "up")
    assert (faults, first) == ("ok", second)
    assert int(first) >= committed


async def test_redis_with_an_append_only_file_keeps_what_was_committed(service: Service, tmp_path: Path) -> None:
    need_program("redis-server")
    check = need_program("redis-check-aof")
    progress, socket = Progress(tmp_path / "progress"), tmp_path / "socket"
    wrapped = await service.run(sys.executable, programs, "redis", str(progress.path), str(socket))
    assert await words_after(wrapped, "up") == ["0"]
    committed = await progress.grows(20)
    snapshot_id = await snapshot(service)
    await progress.grows(20)
    kept = tmp_path / "kept"
    await asyncio.to_thread(shutil.copytree, await service.tree(snapshot_id), kept)
    manifest = next(kept.glob("appendonlydir/*.manifest"))
    await asyncio.to_thread(subprocess.run, [check, manifest], check=True, stdout=subprocess.DEVNULL)
    await restore(service, snapshot_id)
    (count,) = await words_after(wrapped, "up")
    assert int(count) >= committed
    (service.live / "stop").touch()
    assert (await wrapped.ended())[0] == 0


async def test_vite_serves_the_restored_tree_and_sees_later_changes(service: Service) -> None:
    command = vite()
    (service.live / "index.html").write_text('<script type="module" src="/main.js"></script>')
    main = service.live / "main.js"
    main.write_text("console.log('as in the snapshot')")
    wrapped = await service.shell(f"exec {command} --host 127.0.0.1 --clearScreen false 2>&1")
    assert "as in the snapshot" in await vite_serves(wrapped)
    snapshot_id = await snapshot(service)
    main.write_text("console.log('after the snapshot')")
    await restore(service, snapshot_id)
    assert "as in the snapshot" in await vite_serves(wrapped)
    (service.live / "main.js").write_text("console.log('after the restore')")
    while "page reload" not in await wrapped.line():
        pass


async def vite_serves(wrapped: Wrapped) -> str:
    """What a vite that starts says in its first lines, and then sends as main.js."""
    while "http://" not in (line := await wrapped.line()):
        assert not wrapped.process.stdout.at_eof()  # pyright: ignore[reportOptionalMemberAccess]
    url = "http://" + "".join(c for c in line.partition("http://")[2] if c.isprintable()).split("/")[0]
    url = url.replace("[1m", "").replace("[22m", "").replace("[39m", "").replace("[36m", "")
    await asyncio.to_thread(lambda: urllib.request.urlopen(f"{url}/", timeout=30).read())
    return await asyncio.to_thread(lambda: urllib.request.urlopen(f"{url}/main.js", timeout=30).read().decode())


async def test_a_watchdog_observer_sees_changes_of_the_restored_tree(service: Service) -> None:
    packages = python_packages()
    wrapped = await service.run(sys.executable, programs, "watchdog", env={**os.environ, "PYTHONPATH": str(packages)})
    await words_after(wrapped, "up")
    (service.live / "file").write_text("1")
    (before,) = await words_after(wrapped, "changed")
    snapshot_id = await snapshot(service)
    await restore(service, snapshot_id)
    await words_after(wrapped, "up")
    (service.live / "file").write_text("2")
    assert await words_after(wrapped, "changed") == [before]


async def test_a_language_server_finds_the_errors_of_the_restored_tree(service: Service) -> None:
    command = pyright_language_server()
    (service.live / "main.py").write_text("from thing import number\n\nnumber.upper()\n")
    (service.live / "thing.py").write_text("number = 1\n")
    wrapped = await service.run(sys.executable, programs, "language_server", *command.split(), "--stdio")
    before = await words_after(wrapped, "errors")
    assert before[0] == "1"
    snapshot_id = await snapshot(service)
    (service.live / "thing.py").write_text("number = 'text'\n")
    await restore(service, snapshot_id)
    assert await words_after(wrapped, "errors") == before
