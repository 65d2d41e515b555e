"""What sessions say about freezes, written together: one statement for all that came while the last was under way.

Nobody waits for others to come: a word that comes alone is written at once. But the agents of a workspace stop within
the same few milliseconds, and twenty statements cost the API and PostgreSQL many times what one for all of them does.
"""

import asyncio
from collections import OrderedDict
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg
from msgspec import Struct

from wvs.postgres.pool import Pool, Record
from wvs.postgres.queries import sql

_TOGETHER: Final = sql("acknowledge_together")
_MOST_TOGETHER: Final = 100
_MOST_REMEMBERED: Final = 20_000


class AckKind(StrEnum):
    """What a session says about a freeze."""

    FROZEN = "frozen"
    REFUSED = "refused"
    STILL_FROZEN = "still_frozen"


class Acknowledgement(Struct, frozen=True):
    """A session's word on freeze `freeze`."""

    kind: AckKind
    freeze: int
    token: str | None = None
    flush: str | None = None
    reason: str | None = None


class _Spoken(Struct, frozen=True):
    session_id: UUID
    word: Acknowledgement
    written: asyncio.Future[Record | None]


class Words:
    """One per process. Each caller gets the row of its own word, or what was raised for it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._workspaces: OrderedDict[UUID, UUID] = OrderedDict()
        self._waiting: dict[UUID, list[_Spoken]] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def remember(self, session_id: UUID, workspace_id: UUID) -> None:
        """Sessions of one workspace, which never changes, are written together; one that is not known, alone."""
        self._workspaces[session_id] = workspace_id
        if len(self._workspaces) > _MOST_REMEMBERED:
            self._workspaces.popitem(last=False)

    async def write(self, session_id: UUID, word: Acknowledgement) -> Record | None:
        """The row of `acknowledge_together` for this word; None if there is no such session."""
        lane = self._workspaces.get(session_id, session_id)
        spoken = _Spoken(session_id, word, asyncio.get_running_loop().create_future())
        if (waiting := self._waiting.get(lane)) is not None:
            waiting.append(spoken)
        else:
            self._waiting[lane] = [spoken]
            task = asyncio.create_task(self._write_all(lane))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
        return await spoken.written

    async def _write_all(self, lane: UUID) -> None:
        while waiting := self._waiting[lane]:
            now, self._waiting[lane] = waiting[:_MOST_TOGETHER], waiting[_MOST_TOGETHER:]
            await self._write([each for each in now if not each.written.done()])
        del self._waiting[lane]

    async def _write(self, spoken: list[_Spoken]) -> None:
        if not spoken:
            return
        try:
            rows = await self._pool.fetch(_TOGETHER, *_columns(spoken))
        except asyncpg.DataError as error:
            # The statement had no effect. What one word is to blame for must not become the others' fault.
            if len(spoken) == 1:
                _fail(spoken, error)
            else:
                for each in spoken:
                    await self._write([each])
        except Exception as error:  # noqa: BLE001 - raised to all who wait for it
            _fail(spoken, error)
        else:
            found = {row["word"]: row for row in rows}
            for number, each in enumerate(spoken, 1):
                if not each.written.done():
                    each.written.set_result(found.get(number))


def _columns(spoken: list[_Spoken]) -> tuple[list[object], ...]:
    """The arguments of wvs.acknowledge_together, an array each."""
    words = [each.word for each in spoken]
    return (
        [each.session_id for each in spoken],
        [word.freeze for word in words],
        [word.kind for word in words],
        [word.token for word in words],
        [word.flush for word in words],
        [word.reason for word in words],
    )


def _fail(spoken: list[_Spoken], error: Exception) -> None:
    for each in spoken:
        if not each.written.done():
            each.written.set_exception(error)
