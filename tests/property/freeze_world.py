"""Real freezes around simulated agents.

The executor's `frozen` block, the registry of sessions and their SQL are the real ones, on a real Postgres. The agents
are simulated, so that the test knows when each of them ran. `Tick` is the order of all steps.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from wvs.domain.errors import Refused
from wvs.domain.states import TaskKind
from wvs.engines.base import Cancel
from wvs.engines.copy import CopyEngine
from wvs.engines.errors import EngineError
from wvs.executor.freeze_driver import frozen
from wvs.postgres.pool import Pool, create_pool
from wvs.postgres.queries import sql
from wvs.queue.lanes import Claim
from wvs.quiesce import freezes
from wvs.quiesce.ack_batches import AckKind, Acknowledgement
from wvs.quiesce.sessions import Directive, DirectiveKind, Sessions, SessionState
from wvs.signals.hints import Broadcast
from wvs.telemetry.metrics import Metrics

BUDGET_S = 30.0
_FOLLOWS = sql("link_moved")
Tick = int
Delivery = Callable[[], Awaitable[object]]


class Agent:
    """One program with its wrapper. It obeys unless a rule of the machine decides otherwise."""

    def __init__(self, session_id: UUID, *, runs: bool, epoch: int, now: Tick) -> None:
        self.id = session_id
        self.epoch = epoch  # of the live tree that it works in, which the path showed when it started
        self.token = 0
        self.acked: int | None = None
        self.resumed: tuple[int, int] | None = None
        self.has_wrapper = True
        self.is_registered = True
        self.is_evicted = False
        self.lies = False
        self.moments: list[tuple[Tick, bool]] = [(now, runs)]

    @property
    def runs(self) -> bool:
        return self.moments[-1][1]

    def change(self, *, runs: bool, now: Tick) -> None:
        self.moments.append((now, runs))

    def thaw(self, now: Tick) -> None:
        self.token += 1
        self.change(runs=True, now=now)

    def ran_within(self, begin: Tick, end: Tick) -> bool:
        at_begin = [runs for at, runs in self.moments if at <= begin]
        return bool(at_begin and at_begin[-1]) or any(runs for at, runs in self.moments if begin < at <= end)


async def run_at_once(function: Callable[..., Any], *args: object) -> Any:
    """In place of the bench's threads, so that the rules alone decide how long a step takes."""
    return function(*args)


class DeadPool:
    """A pool that refuses every connection once its executor was killed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.is_dead = False

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        if self.is_dead:
            raise ConnectionResetError("killed")
        async with self._pool.acquire() as connection:
            yield connection


class Attempt:
    """One executor's attempt at one operation; the rules open its gates."""

    def __init__(self, world: "World", kind: TaskKind) -> None:
        self.kind = kind
        self.fence = world.fence
        self.began: Tick | None = None
        self.ended: Tick | None = None
        self.published: Tick | None = None
        self.members_confirmed = False
        self.error: EngineError | None = None
        self.clone_may_end, self.commit_may_go, self.path_may_follow = (asyncio.Event() for _ in range(3))
        self.cancel = Cancel()
        self.pool = DeadPool(world.pool)
        self._world = world
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async with frozen(self._job(), "/nonexistent") as freeze:
                self.began = self._world.tick()
                await self.clone_may_end.wait()
                self.ended = self._world.tick()
                await freeze.confirm(resume=self.kind is TaskKind.SNAPSHOT_CREATE)
                self.members_confirmed = True
                if self.kind is TaskKind.CURRENT_SET:
                    await self.commit_may_go.wait()
                    with freeze.required():
                        await self._world.move_tree(self.fence)
                    self.ended = self.published = self._world.tick()
                    await self.path_may_follow.wait()
                    await self._world.follow()
            if self.kind is TaskKind.SNAPSHOT_CREATE:
                self.published = self._world.tick()
        except EngineError as error:
            self.error = error
        except ConnectionResetError:
            pass  # the executor was killed

    def _job(self) -> Any:
        world = self._world
        claim = Claim(
            world.workspace_id, 0, self.fence, world.task_id, self.kind, False, False, False, None, None, None, 0
        )
        bench = SimpleNamespace(
            path=SimpleNamespace(pool=self.pool),
            settings=SimpleNamespace(freeze_budget_s=BUDGET_S, bystanders="note"),
            volume=SimpleNamespace(engine=CopyEngine()),
            run=run_at_once,
            hint_sessions=lambda: None,
            freeze_answered=world.acknowledged,
            metrics=world.metrics,
        )
        return SimpleNamespace(
            bench=bench, claim=claim, cancel=self.cancel, watch=SimpleNamespace(set_phase=lambda _name: None)
        )


class World:
    """One workspace with its agents and its executor."""

    def __init__(self, pool: Pool, metrics: Metrics) -> None:
        self.pool = pool
        self.metrics = metrics
        self.sessions = Sessions(pool)
        self.acknowledged = Broadcast()
        self.workspace_id, self.task_id = uuid.uuid4(), uuid.uuid4()
        self.fence = 0
        self.agents: list[Agent] = []
        self.attempt: Attempt | None = None
        self.finished: list[Attempt] = []
        self.epoch = self.path_epoch = 1
        self.in_flight: list[Delivery] = []
        self._now: Tick = 0

    def tick(self) -> Tick:
        self._now += 1
        return self._now

    async def begin(self) -> None:
        await self.pool.execute(
            "INSERT INTO wvs.workspaces (id, name, state, labels, live_tree, epoch, created_at) "
            "VALUES ($1, $2, 'active', '{}', 'tree1', 1, now())",
            self.workspace_id,
            f"w-{self.workspace_id.hex[:12]}",
        )
        await self.pool.execute("INSERT INTO wvs.lanes (workspace_id) VALUES ($1)", self.workspace_id)

    async def settle(self) -> None:
        """Lets the executor advance as far as it can."""
        self.acknowledged.notify()
        await asyncio.sleep(0.01)
        if self.attempt is not None and self.attempt.task.done():
            self.attempt.task.result()
            self.finished.append(self.attempt)
            self.attempt = None

    async def claim(self, kind: TaskKind) -> None:
        await self.follow()
        self.fence += 1
        await self.pool.execute(
            "UPDATE wvs.lanes SET fence = $2, task_id = $3 WHERE workspace_id = $1",
            self.workspace_id,
            self.fence,
            self.task_id,
        )
        self.attempt = Attempt(self, kind)

    async def kill_executor(self) -> None:
        assert self.attempt is not None
        self.attempt.pool.is_dead = True
        self.attempt.clone_may_end.set()
        self.attempt.commit_may_go.set()
        self.attempt.task.cancel()
        await asyncio.gather(self.attempt.task, return_exceptions=True)
        self.finished.append(self.attempt)
        self.attempt = None

    async def reap(self) -> None:
        async with self.pool.acquire() as connection:
            await freezes.abandon(connection, self.workspace_id, self.fence)  # type: ignore[arg-type]

    async def move_tree(self, fence: int) -> None:
        """Changes lane and workspace as the commit of a new live tree does, in one transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE wvs.lanes SET link_pending = 2 WHERE workspace_id = $1 AND fence = $2", self.workspace_id, fence
            )
            await connection.execute("UPDATE wvs.workspaces SET epoch = epoch + 1 WHERE id = $1", self.workspace_id)
        self.epoch += 1

    async def follow(self) -> None:
        """Ends the switch, if one has yet to end: the path shows the live tree from now on."""
        self.path_epoch = self.epoch
        await self.pool.fetch(_FOLLOWS, self.workspace_id, self.epoch)

    async def jump(self, seconds: float) -> None:
        """Lets the database's clock jump by `seconds`; a negative number jumps back."""
        await self.pool.execute(
            "UPDATE wvs.freezes SET holds_until = holds_until - make_interval(secs => $2) WHERE workspace_id = $1",
            self.workspace_id,
            seconds,
        )

    async def holds(self) -> bool:
        query = "SELECT holds_until > clock_timestamp() FROM wvs.freezes WHERE workspace_id = $1 AND phase <> 'over'"
        return bool(await self.pool.fetchval(query, self.workspace_id))

    async def register(self) -> None:
        session, _ = await self.sessions.register(uuid.uuid4(), self.workspace_id, "played", "here", 1, 30)
        directive = await self.sessions.directive(session.id)
        runs = directive.kind is not DirectiveKind.FREEZE
        self.agents.append(Agent(session.id, runs=runs, epoch=self.path_epoch, now=self.tick()))

    async def poll(self, agent: Agent, *, lost: bool, refuses: bool) -> None:
        """Polls one directive and obeys it. A lost acknowledgement may still arrive later."""
        directive = await self.sessions.renew_lease(agent.id)
        match directive.kind:
            case DirectiveKind.RUN:
                if not agent.runs:
                    agent.thaw(self.tick())
            case DirectiveKind.FREEZE if directive.member and agent.acked != directive.freeze:
                await self._freeze_agent(agent, directive, lost=lost, refuses=refuses)
            case DirectiveKind.FREEZE:
                pass
            case DirectiveKind.CONFIRM:
                token = self._token_for(agent, directive.freeze or 0, resume=directive.resume) + (
                    1 if agent.lies else 0
                )
                await self._acknowledge(
                    agent, Acknowledgement(AckKind.STILL_FROZEN, directive.freeze or 0, str(token)), lost=lost
                )
            case DirectiveKind.SWITCH:
                agent.epoch = self.path_epoch
                agent.thaw(self.tick())
                await self.sessions.switched(agent.id, directive.epoch)
            case DirectiveKind.END:
                agent.change(runs=False, now=self.tick())
                agent.is_registered = False

    def _token_for(self, agent: Agent, freeze: int, *, resume: bool) -> int:
        if agent.resumed is not None and agent.resumed[0] == freeze:
            return agent.resumed[1]
        if agent.runs or agent.acked != freeze:
            agent.token += 1  # another process thawed it
        token = agent.token
        if resume and not agent.runs:
            agent.resumed = (freeze, token)
            agent.thaw(self.tick())
        return token

    async def _freeze_agent(self, agent: Agent, directive: Directive, *, lost: bool, refuses: bool) -> None:
        freeze = directive.freeze or 0
        if refuses:
            if not agent.runs and agent.epoch == directive.epoch:
                agent.thaw(self.tick())
            agent.acked = freeze
            await self._acknowledge(agent, Acknowledgement(AckKind.REFUSED, freeze, reason="no"), lost=lost)
            return
        if agent.runs:
            agent.change(runs=False, now=self.tick())
        agent.acked = None if lost else freeze
        await self._acknowledge(agent, Acknowledgement(AckKind.FROZEN, freeze, str(agent.token), "ok"), lost=lost)
        agent.acked = freeze

    async def _acknowledge(self, agent: Agent, ack: Acknowledgement, *, lost: bool) -> None:
        async def deliver() -> None:
            try:
                await self.sessions.acknowledge(agent.id, ack)
            except Refused:
                pass  # FREEZE_STALE: the freeze does not wait for this acknowledgement

        if lost:
            self.in_flight.append(deliver)
        else:
            await deliver()

    def running_in_old_tree(self) -> list[Agent]:
        """Registered agents that run in a live tree that was replaced."""
        present = (a for a in self.agents if a.is_registered and not a.is_evicted)
        return [a for a in present if a.runs and a.epoch != self.epoch]

    async def remove(self, agent: Agent, state: SessionState) -> None:
        await self.sessions.leave(agent.id, state)
        agent.is_registered = False
        agent.is_evicted = state is SessionState.EVICTED


class Bed:
    """The event loop, the pool and the counters that all examples of a run share."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.metrics = Metrics()
        self.pool = self.run(create_pool(url, application_name="wvs test", size=6))
        self.outcomes: dict[str, int] = {}
        self.steps = 0
        self.violations: list[str] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.pool.close())
        self.loop.close()

    def take_out(self, function: str, condition: str) -> None:
        """Takes a condition out of a function of the database."""
        source = self.run(self.pool.fetchval(f"SELECT pg_get_functiondef('wvs.{function}'::regproc)"))
        assert condition in source
        self.run(self.pool.execute(source.replace(condition, "")))
