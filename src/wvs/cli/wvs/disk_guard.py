"""Keeps room for a full disk while `wvs up` runs its own PostgreSQL: the reserve, and spare segments of the WAL.

A full disk ends PostgreSQL when it needs another segment, and it needs one to start again. A server that
met a full disk in its recovery may also wait for ever (seen with 18.6); then it is ended, and `wvs up` starts it again.
"""

import asyncio
import contextlib
import os
import signal
import time
from typing import Final

import asyncpg
import structlog

from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.embedded import EmbeddedPostgres
from wvs.postgres.pool import Connection, close, connect
from wvs.postgres.reserve import START_BYTES, disk_of

SPARE_SEGMENTS: Final = 3
GUARD_EVERY_S: Final = 2.0
RECOVERY_S: Final = 10.0
"""Seconds of refused connections after a full disk until a server is taken for hung. Doubled each time, because a long
recovery looks the same, and a server that is ended begins its recovery again.
"""
_SPACIOUS: Final = 0.8
_NEXT_SEGMENT: Final = ("SELECT pg_logical_emit_message(true, 'wvs', '')", "SELECT pg_switch_wal()")

log = structlog.get_logger(__name__)


class DiskGuard:
    """Guards the disk of one server."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._reserved = 0
        self._spare = False
        self._was_full = False
        self._refused_since: float | None = None
        self._patience_s = RECOVERY_S

    async def run(self, ending: asyncio.Event) -> None:
        """Looks every few seconds until `ending` is set."""
        while not ending.is_set():
            try:
                await asyncio.to_thread(self._fill)
                if self._was_full or not self._spare:
                    await self._ask_server()
            except OSError as error:
                log.warning("disk_guard_failed", error=f"{type(error).__name__}: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), GUARD_EVERY_S)

    def _fill(self) -> None:
        reserve, path = self._server.reserve, str(self._server.data_dir)
        if reserve.size < self._reserved:
            log.error("disk_reserve_released", path=path, bytes_left=reserve.size, read="wvs runbook disk-full")
        if reserve.fill():
            log.info("disk_reserve_filled", path=path, bytes=reserve.size)
        self._reserved = reserve.size
        self._was_full = self._was_full or disk_of(self._server.data_dir).free < START_BYTES

    async def _ask_server(self) -> None:
        try:
            connection = await connect(self._server.url(), application_name="wvs-up")
        except asyncpg.TooManyConnectionsError:
            self._refused_since = None  # it works
            return
        except (*CONNECTION_LOST, asyncpg.PostgresError):
            self._end_if_hung()
            return
        try:
            self._refused_since, self._patience_s = None, RECOVERY_S
            self._was_full = disk_of(self._server.data_dir).free < START_BYTES
            self._spare = self._spare or await self._make_spare_segments(connection)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            log.warning("disk_guard_failed", error=f"{type(error).__name__}: {error}")
        finally:
            await close(connection)

    def _end_if_hung(self) -> None:
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        pid = self._server.pid
        if self._was_full and pid is not None and now - self._refused_since > self._patience_s:
            log.error("database_hung_after_full_disk", pid=pid, refused_for_s=self._patience_s)
            os.kill(pid, signal.SIGQUIT)
            self._refused_since = None
            self._patience_s *= 2

    async def _make_spare_segments(self, connection: Connection) -> bool:
        """Makes segments that PostgreSQL keeps and reuses; False if the disk has too little room for that now."""
        if disk_of(self._server.data_dir).used_ratio > _SPACIOUS:
            return False
        missing = SPARE_SEGMENTS + 1 - await connection.fetchval("SELECT count(*) FROM pg_ls_waldir()")
        for _ in range(missing):
            for statement in _NEXT_SEGMENT:
                await connection.execute(statement)
        if missing > 0:
            await connection.execute("CHECKPOINT")  # from now on the segments are spare
        return True
