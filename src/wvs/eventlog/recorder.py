"""The recorder: one command's write is one call of `wvs.commit_command_v2`; `settled` finds how a broken call ended."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from wvs.domain.errors import ErrorCode, Refused
from wvs.postgres.pool import Connection
from wvs.postgres.queries import sql

_COMMIT: Final = sql("commit_command")
_SETTLED: Final = sql("settled_hash")
_ANSWER: Final = sql("idempotent_answer")
_SHOWN: Final = sql("shown_rows")


class Outcome(StrEnum):
    """What `wvs.commit_command_v2` answers; all but the first wrote nothing."""

    COMMITTED = "committed"
    REPLAYED = "replayed"
    REUSED = "reused"
    IN_FLIGHT = "in_flight"
    CONFLICT = "conflict"
    STALE_FENCE = "stale_fence"


class IdempotencyKey(Struct, frozen=True):
    """A caller's key: `scope` is caller and operation, `fingerprint` is of the whole request (design §5)."""

    scope: str
    key: str
    fingerprint: bytes


class Hold(Struct, frozen=True):
    """The claim that a write is made under; the lane must still be held by it."""

    task_id: UUID
    fence: int


class Show(Struct, frozen=True, omit_defaults=True):
    """The rows that the answer shows."""

    workspace: UUID | None = None
    snapshot: UUID | None = None
    task: UUID | None = None


class NewEvent(Struct, frozen=True):
    """An event as it is stored; its version is its place in the write."""

    topic: str
    state: bytes
    hash: bytes
    task_id: UUID | None
    snapshot_id: UUID | None


class CommandWrite(Struct, frozen=True):
    """Everything that one command writes; its JSON is the argument of `wvs.commit_command_v2`."""

    workspace_id: UUID
    expected: int
    previous_hash: bytes
    events: list[NewEvent]
    occurred_at: datetime
    actor: str
    request_id: str
    traceparent: str | None
    changes: dict[str, Any]
    steps: list[dict[str, Any]]
    key: IdempotencyKey | None
    status: int
    show: Show | None
    hold: Hold | None


class CommitResult(Struct, frozen=True):
    """The result of one call; `answer` is a JSON object of the rows that `Show` names."""

    outcome: Outcome
    version: int | None
    status: int | None
    answer: bytes | None


_NAME_CONSTRAINT: Final = "workspaces_name_key"


async def record(connection: Connection, write: CommandWrite) -> CommitResult:
    """Commits `write`, or returns the outcome that prevents it.

    Raises `Refused` where a constraint decides, and the errors of asyncpg and of the socket. After an error of the
    connection the outcome is unknown; `settled` finds it.
    """
    try:
        row = await connection.fetchrow(_COMMIT, msgspec.json.encode(write))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != _NAME_CONSTRAINT:
            raise
        raise Refused(
            ErrorCode.WORKSPACE_NAME_TAKEN,
            "Another workspace that is not disabled has this name.",
            "Choose another name, or find the workspace with wvsctl workspace get NAME.",
        ) from error
    if row is None:
        raise AssertionError("commit_command_v2 returns a row on every path")
    return CommitResult(Outcome(row["outcome"]), row["version"], row["status"], row["answer"])


async def settled(connection: Connection, write: CommandWrite) -> CommitResult | None:
    """The result of `write`, once no transaction of it can be running any more; None if it was not committed.

    The answer to a write without a key is not stored; it is built from the rows as they are now.
    """
    version = write.expected + len(write.events)
    key = write.key
    found = await connection.fetchval(_SETTLED, write.workspace_id, version, key and key.scope, key and key.key)
    if not write.events or found != write.events[-1].hash:
        return None
    answer: bytes | None = None
    if key is not None:
        known = await idempotent_answer(connection, key)
        answer = None if known is None else known.answer
    elif write.show is not None:
        answer = await connection.fetchval(_SHOWN, msgspec.json.encode(write.show))
    return CommitResult(Outcome.COMMITTED, version, write.status, answer)


async def idempotent_answer(connection: Connection, key: IdempotencyKey) -> CommitResult | None:
    """The stored answer to `key`, replayed or reused; None if the key is new."""
    row = await connection.fetchrow(_ANSWER, key.scope, key.key)
    if row is None:
        return None
    outcome = Outcome.REPLAYED if row["fingerprint"] == key.fingerprint else Outcome.REUSED
    return CommitResult(outcome, None, row["status"], row["answer"])
