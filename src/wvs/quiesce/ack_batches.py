"""Writes the acknowledgements of sessions in batches: one statement for all that arrived during the one before.

An acknowledgement never waits for others to arrive: a single one is written at once. But the agents of a workspace stop
within the same few milliseconds, and twenty statements cost the API and PostgreSQL many times what one for all does.
"""

import asyncio
from collections import OrderedDict
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from wvs.postgres.pool import Pool, Record
from wvs.postgres.queries import sql
from wvs.quiesce.member_details import MemberDetails

_ACKNOWLEDGE_TOGETHER: Final = sql("acknowledge_together")
_encode: Final = msgspec.json.encode
_MAX_BATCH: Final = 100
_MAX_REMEMBERED: Final = 20_000


class AckKind(StrEnum):
    """What a session acknowledges: it is frozen, it refuses, or it stayed frozen until it was asked again."""

    FROZEN = "frozen"
    REFUSED = "refused"
    STILL_FROZEN = "still_frozen"


class Acknowledgement(Struct, frozen=True):
    """A session's acknowledgement of freeze `freeze`."""

    kind: AckKind
    freeze: int
    token: str | None = None
    flush: str | None = None
    reason: str | None = None
    details: MemberDetails | None = None


class _PendingAck(Struct, frozen=True):
    session_id: UUID
    ack: Acknowledgement
    written: asyncio.Future[Record | None]


class AckBatches:
    """One per process. Each caller gets the row of its own acknowledgement, or the error that writing it raised."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._workspaces: OrderedDict[UUID, UUID] = OrderedDict()
        self._waiting: dict[UUID, list[_PendingAck]] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def remember_workspace(self, session_id: UUID, workspace_id: UUID) -> None:
        """Records the workspace of a session, which never changes. Only sessions of one workspace share a batch."""
        self._workspaces[session_id] = workspace_id
        if len(self._workspaces) > _MAX_REMEMBERED:
            self._workspaces.popitem(last=False)

    async def write(self, session_id: UUID, ack: Acknowledgement) -> Record | None:
        """Writes an acknowledgement; returns its row of `acknowledge_together`. None if there is no such session."""
        lane = self._workspaces.get(session_id, session_id)
        pending = _PendingAck(session_id, ack, asyncio.get_running_loop().create_future())
        if (waiting := self._waiting.get(lane)) is not None:
            waiting.append(pending)
        else:
            self._waiting[lane] = [pending]
            task = asyncio.create_task(self._write_all(lane))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
        return await pending.written

    async def _write_all(self, lane: UUID) -> None:
        while waiting := self._waiting[lane]:
            now, self._waiting[lane] = waiting[:_MAX_BATCH], waiting[_MAX_BATCH:]
            await self._write([each for each in now if not each.written.done()])
        del self._waiting[lane]

    async def _write(self, pending: list[_PendingAck]) -> None:
        if not pending:
            return
        try:
            rows = await self._pool.fetch(_ACKNOWLEDGE_TOGETHER, *_columns(pending))
        except asyncpg.DataError as error:
            # The statement had no effect. One faulty acknowledgement must not fail the others: each is written alone.
            if len(pending) == 1:
                _fail(pending, error)
            else:
                for each in pending:
                    await self._write([each])
        except Exception as error:  # noqa: BLE001 - raised in every caller of this batch
            _fail(pending, error)
        else:
            by_number = {row["word"]: row for row in rows}
            for number, each in enumerate(pending, 1):
                if not each.written.done():
                    each.written.set_result(by_number.get(number))


def _columns(pending: list[_PendingAck]) -> tuple[list[object], ...]:
    """The arguments of wvs.acknowledge_together, one array each."""
    acks = [each.ack for each in pending]
    return (
        [each.session_id for each in pending],
        [ack.freeze for ack in acks],
        [ack.kind for ack in acks],
        [ack.token for ack in acks],
        [ack.flush for ack in acks],
        [ack.reason for ack in acks],
        [None if ack.details in (None, MemberDetails()) else _encode(ack.details).decode() for ack in acks],
    )


def _fail(pending: list[_PendingAck], error: Exception) -> None:
    for each in pending:
        if not each.written.done():
            each.written.set_exception(error)
