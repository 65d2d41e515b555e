"""Hints that something was committed. They are coalesced and sent on their own connection.

A hint only saves time: every receiver also polls. NOTIFY takes a cluster-wide lock at commit, so that sending it within
a command's transaction would serialise all writers: 14,719 became 1,841 transactions a second
(docs/measurements.md#notify). A hint a few milliseconds later wakes the receivers as well.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeAlias

import structlog

from wvs.background import background
from wvs.postgres.pool import Connection, connect
from wvs.postgres.queries import sql

TASKS: Final = "wvs_tasks"
EVENTS: Final = "wvs_events"
SESSIONS: Final = "wvs_sessions"
"""A session may have a new directive."""
FREEZES: Final = "wvs_freezes"
"""A session has acknowledged a freeze."""

COALESCE_S: Final = 0.002
_RECONNECT_S: Final = 0.5
_HINT: Final = sql("hint")

log = structlog.get_logger(__name__)


OnLost: TypeAlias = Callable[[], object]
"""Called when hints were lost with their connection: until it is back, receivers learn of changes by polling only."""


class Hinter:
    """Sends hints. `touch` never blocks or fails: a hint that cannot be sent is dropped, and `on_lost` is called."""

    def __init__(self, url: str, on_lost: OnLost, coalesce_s: float = COALESCE_S) -> None:
        self._url = url
        self._on_lost = on_lost
        self._coalesce_s = coalesce_s
        self._wanted: set[str] = set()
        self._wake = asyncio.Event()
        self._connection: Connection | None = None

    def touch(self, *channels: str) -> None:
        """Sends one hint on each channel within milliseconds."""
        self._wanted.update(channels)
        self._wake.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["Hinter"]:
        """Sends hints while the block lasts."""
        try:
            async with background(self._run()):
                yield self
        finally:
            self._drop()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            # The first hint of a burst is sent at once; hints that arrive meanwhile are sent together.
            self._wake.clear()
            wanted, self._wanted = self._wanted, set()
            try:
                await self._send(wanted)
            # Every error: asyncpg raises InternalClientError if the server ends the connection during a query. If this
            # task ended, all receivers would silently depend on polling for the life of the process.
            except Exception as error:  # noqa: BLE001
                log.warning("hint_not_sent", error=repr(error))
                self._on_lost()
                self._drop()
                await asyncio.sleep(_RECONNECT_S)
            await asyncio.sleep(self._coalesce_s)

    async def _send(self, channels: set[str]) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, application_name="wvs-hints")
        for channel in sorted(channels):
            await self._connection.execute(_HINT, channel)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class Broadcast:
    """Wakes every task that waits at this moment, and no task that begins to wait later."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wakes every waiting task. Never blocks."""
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """The event that the next `notify` sets. Get it before you read the state, wait for it afterwards."""
        return self._event


class Listener:
    """Listens on channels and calls back. It reconnects by itself, and calls every callback after each connection."""

    def __init__(
        self, url: str, callbacks: dict[str, Callable[[], None]], on_lost: OnLost, heartbeat_s: float = 10.0
    ) -> None:
        self._url = url
        self._on_lost = on_lost
        self._callbacks = callbacks
        self._heartbeat_s = heartbeat_s

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["Listener"]:
        """Listens while the block lasts."""
        async with background(self._run()):
            yield self

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - as above; every receiver also polls
                log.warning("listener_lost", error=repr(error))
                self._on_lost()
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self) -> None:
        connection = await connect(self._url, application_name="wvs-listener")
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: lost.set())
        try:
            for channel in self._callbacks:
                await connection.add_listener(channel, self._on_notification)
            for callback in self._callbacks.values():
                callback()
            while not lost.is_set():
                # Not wait_for, which may miss a cancellation, see http/live/directives.py.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._heartbeat_s):
                        await lost.wait()
                await connection.execute("SELECT 1")  # raises if the connection was lost
        finally:
            connection.terminate()

    def _on_notification(self, _connection: Any, _pid: int, channel: str, _payload: object) -> None:
        self._callbacks[channel]()
