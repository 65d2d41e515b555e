"""One executor process: its slots, the reaper, the sweeper, and an orderly shutdown."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import msgspec
import structlog

from wvs.application.write_path import WritePath
from wvs.background import background, stop
from wvs.domain.events import Event
from wvs.domain.states import TaskKind
from wvs.engines.base import Journal
from wvs.engines.volume.journal import journal_file
from wvs.engines.volume.opening import open_volume
from wvs.engines.volume.volume import Volume
from wvs.eventlog.codec import EventMapper
from wvs.executor.slot import Slot
from wvs.executor.switching import bring_pending_trees
from wvs.executor.volume_binding import bind
from wvs.executor.volume_sweep import sweep_after_lost_claim, sweep_periodically
from wvs.executor.workbench import Workbench
from wvs.postgres.access import check_access, when_reachable
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.compatibility import check_schema
from wvs.postgres.pool import Pool, acquire, close, connect, create_pool
from wvs.postgres.reserve import DiskReserve
from wvs.queue.lanes import DEADLINES_S, reap
from wvs.queue.living import REAPER
from wvs.quiesce import freezes
from wvs.settings import Settings
from wvs.signals import hints
from wvs.telemetry.failures import survived
from wvs.telemetry.metrics import Metrics

_REAP_EVERY_S: Final = 0.7
_HAND_BACK_S: Final = 3.0

log = structlog.get_logger(__name__)


def new_executor_id() -> str:
    """A unique name: host, process and a random part."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"


class Executor:
    """Runs tasks on the volume of the settings. `run` returns after `stop`, once work has ended or was handed back.

    `deadlines_s`: seconds that an attempt at each kind of task may take.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        metrics: Metrics,
        deadlines_s: Mapping[TaskKind, float] = DEADLINES_S,
    ) -> None:
        self._settings = settings
        self._url = url
        self._metrics = metrics
        self._deadlines_s = deadlines_s
        self._hinter = hints.Hinter(url, metrics.ignored_failures.labels(where="hint_sender").inc)
        self._stopping = asyncio.Event()
        self._slots: list[Slot] = []
        self._tidying: set[asyncio.Task[None]] = set()
        self.stuck = False
        """True if `run` returned although a thread still hangs on the volume: such a thread cannot be ended."""
        self.serving = asyncio.Event()
        """Set once a slot has looked for work: from then on tasks run."""
        self.executor_id = new_executor_id()

    def stop(self) -> None:
        """Stops claiming; running work ends within the grace time or is handed back."""
        self._stopping.set()
        self._wake()

    async def run(self) -> None:
        """Works until stopped; waits first while the database is away, for `WVS_DATABASE_WAIT_S` at most.

        Raises `EngineError` if the volume cannot be used, `WrongVolumeError` if it is not that of the log,
        `SchemaTooOld`, `SchemaTooNew`, or as `check_access` does.
        """
        pool = await self._reached()
        if pool is None:
            return
        try:
            async with acquire(pool) as connection:
                await check_schema(connection)
            async with self._bench(pool) as bench, self._hints(bench):
                log.info("executor_started", executor_id=self.executor_id, engine=bench.volume.engine.name)
                await self._work(bench)
                await bench.path.close()
        finally:
            await close(pool)
        log.info("executor_stopped", executor_id=self.executor_id)

    async def _reached(self) -> "Pool | None":
        """The pool, as soon as the database is there; None if this executor is stopped before that."""

        async def reach() -> Pool:
            await check_access(self._url, for_writes=True)
            return await create_pool(self._url, application_name="wvs-executor", size=self._settings.pool_size)

        async with background(when_reachable(reach, self._settings.database_wait_s), self._stopping.wait()) as tasks:
            reaching = tasks[0]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return await reaching if reaching.done() else None

    async def _work(self, bench: Workbench) -> None:
        self._slots = [
            Slot(bench, self._url, self._stopping, self.serving.set, self._deadlines_s)
            for _ in range(self._settings.executor_slots)
        ]
        async with asyncio.TaskGroup() as group:
            slots = [group.create_task(slot.run()) for slot in self._slots]
            helpers = [
                group.create_task(self._reap(bench)),
                group.create_task(sweep_periodically(bench, self._url, self._stopping)),
            ]
            await self._stopping.wait()
            await self._drain(bench, slots)
            for task in (*slots, *helpers):
                task.cancel()

    async def _drain(self, bench: Workbench, slots: list[asyncio.Task[None]]) -> None:
        """Waits for work to end for most of the grace time, then hands back what reaches a safe point in time."""
        grace_s = self._settings.drain_grace_s
        reserve_s = min(_HAND_BACK_S, grace_s / 2)
        _, busy = await asyncio.wait(slots, timeout=grace_s - reserve_s)
        if not busy:
            return
        bench.tidying.request("the executor is shutting down")
        for slot in self._slots:
            if slot.watch is not None:
                slot.watch.hand_back()
        _, stuck = await asyncio.wait(busy, timeout=reserve_s)
        if stuck:
            self.stuck = True
            self._metrics.ignored_failures.labels(where="drain").inc(len(stuck))
            log.warning("drain_gave_up", slots=len(stuck))

    async def _reap(self, bench: Workbench) -> None:
        """Makes the lanes of dead and hanging executors claimable, about once a second.

        Its connection shows that this executor lives (`living_executors`), so it begins when tasks can run.
        """
        await self.serving.wait()
        try:
            while not self._stopping.is_set():
                try:
                    await self._reap_on_one_connection(bench)
                except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
                    survived(bench.metrics, "reaper", error, "reaper_lost_its_connection")
                    await asyncio.sleep(_REAP_EVERY_S)
                except Exception as error:  # noqa: BLE001 - without a reaper, tasks of dead executors wait for ever
                    survived(bench.metrics, "reaper", error, "reaper_crashed", crashed=True)
                    await asyncio.sleep(_REAP_EVERY_S)
        finally:
            await stop(*self._tidying)

    async def _reap_on_one_connection(self, bench: Workbench) -> None:
        connection = await connect(self._url, application_name=REAPER)
        try:
            while not self._stopping.is_set():
                for lane in await reap(connection):
                    bench.metrics.lease_lost.inc()
                    log.warning("lane_reaped", **msgspec.to_builtins(lane))
                    if await freezes.abandon(connection, lane.workspace_id, lane.fence):
                        bench.hint_sessions()
                    self._wake()
                for workspace_id in await bring_pending_trees(bench):
                    # Beside the reaper: the removal of the tree that came out of the path may take long.
                    task = asyncio.create_task(sweep_after_lost_claim(bench, workspace_id))
                    self._tidying.add(task)
                    task.add_done_callback(self._tidying.discard)
                with contextlib.suppress(TimeoutError):
                    pause = _REAP_EVERY_S * random.uniform(0.8, 1.2)  # noqa: S311 - only spreads the polls
                    await asyncio.wait_for(self._stopping.wait(), pause)
        finally:
            connection.terminate()

    def _wake(self) -> None:
        for slot in self._slots:
            slot.wake()

    @contextlib.asynccontextmanager
    async def _bench(self, pool: Pool) -> AsyncGenerator[Workbench]:
        volume = await asyncio.to_thread(self._open_volume)
        await bind(pool, volume)
        reserve = DiskReserve(self._settings.data_dir)
        path = WritePath(pool, EventMapper(), self._metrics, self._committed, reserve=reserve)
        threads = ThreadPoolExecutor(self._settings.executor_slots + 2, thread_name_prefix="volume")
        try:
            yield Workbench(
                self.executor_id,
                volume,
                path,
                threads,
                self._settings,
                self._metrics,
                hint_sessions=self._hint_sessions,
                hint=self._hint,
            )
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _open_volume(self) -> Volume:
        journal: Journal | None = None
        if self._settings.clone_journal is not None:
            journal = journal_file(self._settings.clone_journal)
        settings = self._settings
        skip = settings.unreadable == "skip"
        return open_volume(str(settings.volume_path), settings.clone_workers, journal, skip_unreadable=skip)

    @contextlib.asynccontextmanager
    async def _hints(self, bench: Workbench) -> AsyncGenerator[None]:
        callbacks = {hints.TASKS: self._wake, hints.FREEZES: bench.freeze_answered.notify}
        lost = self._metrics.ignored_failures.labels(where="hint_listener")
        listener = hints.Listener(self._url, callbacks, lost.inc)
        async with self._hinter.running(), listener.running():
            yield

    def _hint_sessions(self) -> None:
        self._hinter.touch(hints.SESSIONS)

    def _hint(self) -> None:
        self._hinter.touch(hints.EVENTS, hints.TASKS)

    def _committed(self, _workspace_id: UUID, _events: list[Event]) -> None:
        """Hints events only: a task that this commit makes ready is claimable when its slot releases the lane."""
        self._hinter.touch(hints.EVENTS)
