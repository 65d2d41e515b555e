"""One freeze around a clone: opened under the claim, proven before and after the clone, always thawed (design §7).

A workspace without sessions freezes vacuously: no agent has to stop, the stamps still decide, and the certificate says
that it was vacuous. A freeze fails closed: nothing is published if a session is not frozen in time, refuses, or is no
longer frozen after the clone.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from wvs.domain.errors import ErrorCode
from wvs.domain.ids import SESSION, format_id
from wvs.domain.values import Bystanders, Certificate, Member
from wvs.engines.base import Stamp
from wvs.engines.errors import EngineError
from wvs.executor.bystanders import Found, HostSight, bystanders_among, look_at_host, looked_from, refuse_bystanders
from wvs.executor.stopwatch import Stopwatch
from wvs.executor.workbench import Job
from wvs.failpoints import failpoint
from wvs.postgres.availability import CONNECTION_LOST
from wvs.quiesce import freezes
from wvs.quiesce.freezes import FreezeMember, MemberState
from wvs.telemetry.failures import survived

_POLL_S: Final = 0.1
_HOLD_EVERY_S: Final = 1.0
_CLOSE_TRIES: Final = 3
_NOT_HELD: Final = "WV001"
"""The SQLSTATE of wvs.require_freeze."""

_STOPPED: Final = frozenset({MemberState.FROZEN, MemberState.LEFT, MemberState.EVICTED})
"""States of a member that does not write: it is frozen, it is proven to have ended, or an operator evicted it."""

log = structlog.get_logger(__name__)


class Freeze:
    """Freeze `number` of a workspace. Call `confirm` before you publish a clone that was made within it."""

    def __init__(self, job: Job, number: int, budget_s: float, wanted: int, sights: list[HostSight]) -> None:
        self._job = job
        self._budget_s = budget_s
        self._wanted = wanted
        self.number = number
        self.members: list[FreezeMember] = []
        self._sights = sights
        self._together = Stopwatch()  # while all agents are frozen
        self.outcome = "failed"

    async def wait_until_frozen(self) -> None:
        """Returns when every member is frozen; raises QUIESCE_TIMEOUT or QUIESCE_REFUSED, naming those that are not."""
        if self._wanted:
            await self._until(lambda member: member.state in _STOPPED, ErrorCode.QUIESCE_TIMEOUT)
        self._together = Stopwatch()
        if self._job.bench.settings.bystanders == "refuse":
            refuse_bystanders(self._job, self.found().bystanders)

    def found(self) -> Found:
        """The bystanders that all looks saw, on every host."""
        return bystanders_among(self._sights, self.members)

    async def look_after(self, root: str) -> Found:
        """Looks at this host for bystanders after the agents have resumed; returns what all looks saw."""
        self._sights.append(await look_at_host(self._job, root))
        return self.found()

    async def confirm(self, *, resume: bool) -> None:
        """Asks every member after the clone: each must still be frozen under the token that it gave.

        With `resume` each member resumes its agent as soon as it has checked, before it answers. The agent was frozen
        until after the clone, and the answers of the others decide only whether the clone is published.
        Even without members the freeze must have held: it kept every session that joined meanwhile from starting.
        """
        absent = {m.session_id for m in self.members if m.state is not MemberState.FROZEN}
        asked_at = time.monotonic()
        async with self._job.bench.path.pool.acquire() as connection:
            held = await freezes.confirm(_plain(connection), *self._key, self._budget_s, resume=resume)
        if not held:
            raise self._broken("its time was over while the clone was made")
        if resume:
            self._together.stop(asked_at)
        if self._wanted:
            self._job.bench.hint_sessions()
        failpoint("freeze.asked_again")
        if self._wanted:
            await self._until(
                lambda m: m.state is MemberState.CONFIRMED or m.session_id in absent, ErrorCode.QUIESCE_BROKEN
            )
        failpoint("freeze.confirmed")
        self.outcome = "frozen"

    @contextlib.contextmanager
    def required(self) -> Generator[None]:
        """Wraps the commit of a new live tree, which needs a freeze that holds; else raises QUIESCE_BROKEN."""
        try:
            yield
        except asyncpg.PostgresError as error:
            if error.sqlstate != _NOT_HELD:
                raise
            self.outcome = "failed"
            raise self._broken("it was over before the live tree was replaced") from error

    async def hold(self) -> None:
        """Extends the freeze while the executor lives. Without extension the sessions thaw by themselves."""
        while True:
            await asyncio.sleep(min(_HOLD_EVERY_S, self._budget_s / 4))
            try:
                async with self._job.bench.path.pool.acquire() as connection:
                    held = await freezes.hold(_plain(connection), *self._key, self._budget_s)
            except CONNECTION_LOST as error:
                log.warning("freeze_not_held", freeze=self.number, error=repr(error))
                continue
            if not held:
                self._job.cancel.request("the freeze is over", ErrorCode.QUIESCE_BROKEN)
                return

    async def close(self) -> None:
        """Resumes all agents. If the database is away, the sessions thaw by themselves when the budget is over."""
        self._together.stop()
        for _ in range(_CLOSE_TRIES):
            try:
                async with self._job.bench.path.pool.acquire() as connection:
                    await freezes.close(_plain(connection), *self._key, self.outcome)
            except CONNECTION_LOST as error:
                survived(self._job.bench.metrics, "close_freeze", error, "freeze_not_closed", freeze=self.number)
                await asyncio.sleep(_POLL_S)
                continue
            self._job.bench.hint_sessions()
            return

    @property
    def seconds(self) -> float:
        """Seconds for which all agents were frozen; until now if they still are."""
        return self._together.seconds

    def certificate(self, before: Stamp, after: Stamp, engine: str, bystanders: Bystanders) -> Certificate:
        """The proof, to be stored with the event."""
        self._job.bench.metrics.bystanders.inc(bystanders.found)
        return Certificate(
            freeze=self.number,
            vacuous=not self.members,
            members=tuple(_certified(member) for member in self.members),
            stamp_before=before.value,
            stamp_after=after.value,
            engine=engine,
            frozen_at=self._together.started_at,
            resumed_at=self._together.until,
            bystanders=bystanders,
        )

    @property
    def _key(self) -> tuple[UUID, int]:
        return self._job.claim.workspace_id, self.number

    async def _until(self, satisfied: Callable[[FreezeMember], bool], otherwise: ErrorCode) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._budget_s
        while True:
            answered = self._job.bench.freeze_answered.next()
            async with self._job.bench.path.pool.acquire() as connection:
                self.members = await freezes.members(_plain(connection), *self._key)
            waiting = [m for m in self.members if not satisfied(m)]
            if not waiting:
                return
            self._refuse(waiting, otherwise)
            self._job.cancel.check()
            if loop.time() >= deadline:
                raise self._timed_out(waiting, otherwise)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_POLL_S, max(0.0, deadline - loop.time()))):
                    await answered.wait()

    def _refuse(self, waiting: list[FreezeMember], phase: ErrorCode) -> None:
        for member in waiting:
            if member.state is MemberState.REFUSED:
                raise EngineError(
                    ErrorCode.QUIESCE_REFUSED,
                    f"{_describe(member)} refused to freeze: {member.reason or 'no reason given'}.",
                    "Nothing was cloned and all agents run again. Remove the cause, then retry the task.",
                    retryable=False,
                )
            if phase is ErrorCode.QUIESCE_BROKEN and member.state is not MemberState.FROZEN:
                raise self._broken(f"{_describe(member)} was {member.state} while the clone was made")

    def _timed_out(self, waiting: list[FreezeMember], code: ErrorCode) -> EngineError:
        names = "; ".join(_describe(member) for member in waiting)
        if code is ErrorCode.QUIESCE_BROKEN:
            return self._broken(f"no answer after the clone from {names}")
        return EngineError(
            ErrorCode.QUIESCE_TIMEOUT,
            f"Not frozen within {self._budget_s:g} s: {names}.",
            "Nothing was cloned and all other agents run again. Make the session's process answer or end, "
            "or evict the session (wvsctl session evict), then retry the task.",
            retryable=False,
        )

    def _broken(self, why: str) -> EngineError:
        return EngineError(
            ErrorCode.QUIESCE_BROKEN, f"The freeze did not hold: {why}.", "The clone was discarded.", retryable=True
        )


@contextlib.asynccontextmanager
async def frozen(job: Job, look_before: str | None = None) -> AsyncGenerator[Freeze]:
    """A freeze that holds within the block. Raises `EngineError`; however the block ends, all agents resume.

    Before it opens the freeze it looks for processes that hold the tree at `look_before`.
    """
    sights = [] if look_before is None else [await look_at_host(job, look_before)]
    budget_s = max(job.bench.settings.freeze_budget_s, job.bench.volume.engine.freeze_budget_s)
    opened_at = time.monotonic()
    async with job.bench.path.pool.acquire() as connection:
        opened = await freezes.open_freeze(_plain(connection), job.claim, budget_s, looked_from())
    if opened is None:
        raise EngineError(ErrorCode.LEASE_LOST, "a newer claim exists", retryable=True)
    if opened.members:
        job.bench.hint_sessions()
    freeze = Freeze(job, opened.number, budget_s, opened.members, sights)
    structlog.contextvars.bind_contextvars(freeze=opened.number)
    holding = asyncio.create_task(freeze.hold())
    try:
        job.watch.set_phase("freezing")
        failpoint("freeze.opened")
        await freeze.wait_until_frozen()
        yield freeze
    except EngineError as error:
        freeze.outcome = str(error.code).lower()
        raise
    finally:
        holding.cancel()
        failpoint("freeze.closing")
        await freeze.close()
        failpoint("freeze.closed")
        elapsed = time.monotonic() - opened_at
        job.bench.metrics.quiesce_duration_seconds.labels(outcome=freeze.outcome).observe(elapsed)
        job.bench.metrics.freeze_seconds.observe(freeze.seconds)


def _certified(member: FreezeMember) -> Member:
    return Member(member.session_id, member.token or "", member.flush or str(member.state), member.details.frozen)


def _describe(member: FreezeMember) -> str:
    silent = ", silent for longer than its lease" if member.expired else ""
    return f"session {format_id(SESSION, member.session_id)} ({member.agent} on {member.host}{silent})"


def _plain(connection: object) -> freezes.Connection:
    return connection  # pyright: ignore[reportReturnType] - the pool's proxy behaves as the connection
