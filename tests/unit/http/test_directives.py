"""A request that waits for a directive receives a newer one, once, and nothing else."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Mapping
from typing import cast
from uuid import UUID

from wvs.http.live.directives import DirectiveWaiter
from wvs.quiesce.sessions import Directive, DirectiveKind, Sessions
from wvs.telemetry.metrics import Metrics


def directive(number: int, kind: DirectiveKind = DirectiveKind.RUN, *, resume: bool = False) -> Directive:
    return Directive(uuid.UUID(int=1), number, kind, None, True, resume, None, 1, "tree", None)


class Registry:
    """Replaces the registry. A query lasts until `may_end` is set and returns the state at its start."""

    def __init__(self) -> None:
        self.now: dict[UUID, Directive | None] = {}
        self.queries = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def changed(self, seen: Mapping[UUID, int]) -> dict[UUID, Directive | None]:
        self.queries += 1
        found = {s: d for s, d in self.now.items() if s in seen and (d is None or d.number != seen[s])}
        await self.may_end.wait()
        return found


@contextlib.asynccontextmanager
async def waiter(registry: Registry, draining: asyncio.Event) -> AsyncGenerator[DirectiveWaiter]:
    made = DirectiveWaiter(cast("Sessions", registry), Metrics(), draining, poll_s=0.02)
    async with made.running():
        yield made


async def done(changed: asyncio.Future[Directive | None]) -> Directive | None:
    async with asyncio.timeout(10):
        return await changed


async def test_a_newer_directive_is_delivered_and_an_older_one_is_not() -> None:
    """A query that runs while an acknowledgement is written returns a directive older than that acknowledgement."""
    registry, session = Registry(), uuid.uuid4()
    async with waiter(registry, asyncio.Event()) as directives:
        registry.now[session] = directive(4, DirectiveKind.CONFIRM)
        with directives.watching(session, 5) as changed:
            async with asyncio.timeout(10):
                while registry.queries < 4:
                    await asyncio.sleep(0.01)
            assert not changed.done()
            registry.now[session] = directive(6, DirectiveKind.FREEZE)
            found = await done(changed)
    assert found == registry.now[session]


async def test_a_wait_that_starts_during_a_query_is_served_by_the_next_query() -> None:
    registry, first, late = Registry(), uuid.uuid4(), uuid.uuid4()
    async with waiter(registry, asyncio.Event()) as directives:
        registry.may_end.clear()
        with directives.watching(first, 1):
            while not registry.queries:
                await asyncio.sleep(0.001)
            with directives.watching(late, 1) as changed:
                registry.now[late] = directive(2)
                await asyncio.sleep(0.05)
                assert not changed.done()
                registry.may_end.set()
                assert await done(changed) == directive(2)


async def test_sessions_that_may_resume_acknowledge_after_all_have_resumed() -> None:
    registry, sessions = Registry(), [uuid.uuid4() for _ in range(20)]
    other = uuid.uuid4()
    async with waiter(registry, asyncio.Event()) as directives:
        with contextlib.ExitStack() as stack:
            waits = [stack.enter_context(directives.watching(session, 1)) for session in (*sessions, other)]
            registry.now = {session: directive(2, DirectiveKind.CONFIRM, resume=True) for session in sessions}
            registry.now[other] = directive(2, DirectiveKind.CONFIRM)
            directives_of = [await done(wait) for wait in waits]
    pauses = [each.answer_after_s for each in directives_of if each is not None]
    assert pauses[-1] == 0, "a session that stays stopped acknowledges at once"
    spread = sorted(pauses[:-1])
    assert len(set(spread)) == len(sessions)
    assert 0 < spread[0] < spread[-1] <= 0.1


async def test_a_single_session_acknowledges_at_once() -> None:
    registry, session = Registry(), uuid.uuid4()
    async with waiter(registry, asyncio.Event()) as directives:
        with directives.watching(session, 1) as changed:
            registry.now[session] = directive(2, DirectiveKind.CONFIRM, resume=True)
            found = await done(changed)
    assert found is not None
    assert found.answer_after_s == 0


async def test_draining_ends_every_wait_and_starts_none() -> None:
    draining, session = asyncio.Event(), uuid.uuid4()
    async with waiter(Registry(), draining) as directives:
        with directives.watching(session, 1) as changed:
            draining.set()
            async with asyncio.timeout(10):
                await asyncio.wait({changed})
            assert changed.cancelled()
        with directives.watching(session, 1) as changed:
            assert changed.cancelled()
