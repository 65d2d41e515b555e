"""`wvs up`: database, migrations, API and executor in one process tree, each in a process of its own.

This process restarts a child that ends unexpectedly, for example a crashed executor. The tree ends as a whole: the
children drain when this process ends, for whatever reason.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import structlog
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from wvs.cli.wvs.child_process import PARENT_PID, READY_FD, Announcements
from wvs.cli.wvs.environment import child_environment
from wvs.cli.wvs.exits import EXIT_FAILURE, EXIT_USAGE
from wvs.engines.base import EngineName
from wvs.engines.volume.opening import init_volume
from wvs.postgres.compatibility import check_schema_at
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.errors import DatabaseSetupError
from wvs.postgres.migrate import migrate
from wvs.settings import InvalidSetting, Settings

_CHILDREN: Final = ("api", "executor")
_BACKOFF_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
_STABLE_S: Final = 30.0
_READY_TIMEOUT_S: Final = 60.0
_KILL_AFTER_S: Final = 15.0
_DATABASE_POLL_S: Final = 0.5

log = structlog.get_logger(__name__)


def run_up(settings: Settings, engine: EngineName | None) -> int:
    """Runs the process tree until a signal stops it; returns its exit code."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            f"WVS_DATA_DIR={settings.data_dir} is no directory and cannot become one: {error.strerror}"
        ) from error
    with _embedded_database(settings) as server:
        url = settings.database_url if server is None else server.url()
        asyncio.run(migrate(url or "", database_wait_s=settings.database_wait_s))
        asyncio.run(check_schema_at(url or ""))
        _ensure_volume(settings.volume_path, engine)
        return asyncio.run(_ProcessTree(replace(settings, database_url=url), server).run())


@contextlib.contextmanager
def _embedded_database(settings: Settings) -> Generator[EmbeddedPostgres | None]:
    if settings.database_url is not None:
        yield None
        return
    with EmbeddedPostgres(settings.data_dir) as server:
        yield server


def _ensure_volume(path: Path, engine: EngineName | None) -> None:
    made = init_volume(str(path), uuid7(), engine)
    if made.choice is not None:
        log.info("volume_made", path=str(path), engine=made.identity.engine)


class _ProcessTree:
    """Starts, restarts and stops the children."""

    def __init__(self, settings: Settings, server: EmbeddedPostgres | None) -> None:
        self._settings = settings
        self._server = server
        self._children: set[asyncio.subprocess.Process] = set()
        self._ending = asyncio.Event()
        self._exit_code = 0
        self._why: str | None = None
        self._environment = {**child_environment(settings), PARENT_PID: str(os.getpid())}

    async def run(self) -> int:
        """Returns 0 after a signal, 1 if a child did not start in time, 2 if a child refused its settings."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        announcements = Announcements()
        descriptor = announcements.writing
        with announcements.received():
            parts = [asyncio.create_task(self._supervise(command, descriptor)) for command in _CHILDREN]
            database = asyncio.create_task(self._supervise_database())
            await self._announce_ready(announcements)
            await self._ending.wait()
            await asyncio.gather(*parts, database)
            if self._why is not None:
                # After the last lines of the children: the reason is not to be searched for in the log.
                reason = announcements.refusal or "its messages are above"
                sys.stderr.write(f"wvs: wvs up has ended, because {self._why}: {reason}\n")
        return self._exit_code

    async def _announce_ready(self, announcements: Announcements) -> None:
        """Prints `ready URL` once the API serves and tasks run; ends the tree if that takes too long."""
        coming = asyncio.create_task(self._until_ready(announcements))
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait({coming, ending}, timeout=_READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if coming.done():
            sys.stdout.write(coming.result())
            sys.stdout.flush()
            return
        coming.cancel()
        if not self._ending.is_set():
            missing = " and ".join(f"`wvs {command}`" for command in _CHILDREN if not announcements.arrived(command))
            self._end(EXIT_FAILURE, f"{missing} did not start within {_READY_TIMEOUT_S:g} s")

    async def _until_ready(self, announcements: Announcements) -> str:
        """Waits for all parts; returns the lines to print."""
        api = await announcements.of("api")
        # A restarted API must listen on the same port.
        self._environment["WVS_PORT"] = api.where.rsplit(":", 1)[1]
        executor = await announcements.of("executor")
        moved = f"executor metrics {executor.metrics_url}\n" if executor.metrics_url else ""
        return f"ready {api.where}\n{moved}"

    def _end(self, code: int, why: str) -> None:
        log.error("up_failed", why=why)
        self._exit_code, self._why = code, why
        self._ending.set()

    async def _supervise(self, command: str, descriptor: int) -> None:
        """Runs `wvs COMMAND`, and restarts it when it ends before this process is stopped.

        A child that refuses its settings would do so after each restart: it ends the tree.
        """
        failures = 0
        while not self._ending.is_set():
            began = time.monotonic()
            code = await self._run_once(command, descriptor)
            if self._ending.is_set():
                return
            if code == EXIT_USAGE:
                self._end(EXIT_USAGE, f"`wvs {command}` refused its settings")
                return
            failures = 0 if time.monotonic() - began > _STABLE_S else failures + 1
            pause = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            log.warning("child_ended", command=command, code=code, again_in_s=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    async def _supervise_database(self) -> None:
        """Restarts the embedded server when it ends before this process is stopped."""
        while self._server is not None and not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _DATABASE_POLL_S)
            if self._server.pid is None and not self._ending.is_set():
                await self._restart_database(self._server)

    async def _restart_database(self, server: EmbeddedPostgres) -> None:
        log.error("database_ended", log_file=str(server.log_file))
        try:
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
        except DatabaseSetupError as error:
            log.critical("database_not_restarted", error=str(error))
            return
        log.warning("database_restarted")
        if server.url() != self._environment["WVS_DATABASE_URL"]:
            self._environment["WVS_DATABASE_URL"] = server.url()
            for child in self._children:
                child.terminate()

    async def _run_once(self, command: str, descriptor: int) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "wvs.cli.wvs",
            command,
            env={**self._environment, READY_FD: str(descriptor)},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(descriptor,),
            # Ctrl-C must reach only this process, which then stops its children; otherwise it would restart them.
            start_new_session=True,
        )
        log.info("child_started", command=command, pid=process.pid)
        self._children.add(process)
        ended = asyncio.create_task(process.wait())
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait({ended, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not ended.done():
            process.terminate()
            _, slow = await asyncio.wait({ended}, timeout=self._settings.drain_grace_s * 2 + _KILL_AFTER_S)
            if slow:
                log.warning("child_killed", command=command, pid=process.pid)
                process.kill()
        self._children.discard(process)
        return await ended
