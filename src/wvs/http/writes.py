"""One write of one request: its idempotency key, its command, and the answer, which may wait for the task."""

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Final, TypeAlias, TypeVar
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response
from litestar.di import NamedDependency, Provide
from litestar.params import HeaderParameter
from msgspec import Struct

from wvs.application.write_path import Origin, OutcomeUnknownError, Reply
from wvs.domain.commands import Command
from wvs.domain.errors import ErrorCode, Refused
from wvs.domain.events import Event
from wvs.domain.ids import TASK, format_id
from wvs.domain.workspace import Workspace
from wvs.eventlog.recorder import IdempotencyKey, Show
from wvs.http.requests.headers import KEY_PATTERN, parse_idempotency_key, parse_wait, preference_applied
from wvs.http.service import Service
from wvs.http.wire.context import RequestContext
from wvs.postgres.availability import is_unavailable
from wvs.readmodel.rows import AnswerRows, TaskRow, decode_answer

RETRY_AFTER_S: Final = 1
"""Seconds before a client should look at an accepted task. Most tasks are done by then."""

V = TypeVar("V")

Describe: TypeAlias = Callable[[list[Event], Workspace], tuple[int, Show]]

_log = structlog.get_logger("wvs.http")

PreferHeader: TypeAlias = Annotated[
    str | None,
    HeaderParameter(
        name="Prefer",
        required=False,
        max_length=255,
        description="`wait=N`: answer when the task is final or after N seconds, whichever comes first; at most "
        "`WVS_MAX_WAIT_S`, by default 50.",
    ),
]
_KeyHeader: TypeAlias = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        required=False,
        description="1 to 255 visible ASCII characters, bare or in double quotes. Send the same key with every "
        "repetition of this request: the service answers with the first answer and `Idempotent-Replayed: true`.",
        schema_extra={"pattern": KEY_PATTERN},
    ),
]


class WriteResult(Struct, frozen=True):
    """The result of a write: rows as of the command or, if the client asked for a wait, as of its end."""

    rows: AnswerRows
    status: int
    replayed: bool
    waited_s: int | None


class WriteRequest:
    """Executes the command of one request under its idempotency key and answers the request."""

    def __init__(self, service: Service, request: Request[Any, Any, Any], context: RequestContext, key: str | None):
        self.service = service
        self._request = request
        self._context = context
        self._key = key
        self._wait_s = wait_asked_for(request, service.max_wait_s)

    async def execute(
        self, workspace_id: UUID, command: Command, body: Struct | None, describe: Describe
    ) -> WriteResult:
        """Commits the command or finds its stored answer, then waits for the task if the client asked for that.

        Raises the domain's refusals, and `UNAVAILABLE` if the outcome of the commit is unknown.
        """
        origin = Origin(
            self._context.actor, self._context.request_id, self._key, self._context.traceparent, causation=None
        )
        reply = Reply(describe, self._idempotency_key(body))
        try:
            committed = await self.service.write_path.execute(
                workspace_id, command, at=datetime.now(UTC), origin=origin, reply=reply
            )
        except OutcomeUnknownError as error:
            raise Refused(ErrorCode.UNAVAILABLE, str(error)) from error
        rows = AnswerRows() if committed.answer is None else decode_answer(committed.answer)
        rows = await self._after_wait(rows)
        return WriteResult(rows, committed.status, committed.replayed, self._wait_s)

    def respond(self, answered: WriteResult, content: V) -> Response[V]:
        """The answer, with headers that name its task, whether it is a replay, and the wait that was honoured."""
        headers: dict[str, str] = {}
        task = answered.rows.task
        if answered.status == 202 and task is not None:
            headers["location"] = f"{self._context.prefix}/v1/tasks/{format_id(TASK, task.id)}"
            headers["retry-after"] = str(RETRY_AFTER_S)
        if answered.replayed:
            headers["idempotent-replayed"] = "true"
        if task is not None and answered.waited_s is not None:
            headers["preference-applied"] = preference_applied(answered.waited_s)
        return Response(content, status_code=answered.status, headers=headers)

    async def _after_wait(self, rows: AnswerRows) -> AnswerRows:
        if self._wait_s is None or rows.task is None:
            return rows
        try:
            await self.service.wait_for(rows.task, self._wait_s)
            return await self.service.readers.rows_now(_rows_to_show(rows, rows.task))
        except Exception as error:
            # The write is committed. An outage during the wait must not turn its answer into a failure.
            if not is_unavailable(error):
                raise
            _log.warning("http.wait_broken_off", error=f"{type(error).__name__}: {error}")
            return rows

    def _idempotency_key(self, body: Struct | None) -> IdempotencyKey | None:
        if self._key is None:
            return None
        # Compares the meaning of the body, not its bytes: a field that is left out equals its default.
        canonical = b"" if body is None else msgspec.json.encode(body, order="deterministic")
        request = f"{self._request.method} {self._request.scope['path']}\n".encode()
        operation = self._request.route_handler.operation_id
        return IdempotencyKey(f"{self._context.actor} {operation}", self._key, sha256(request + canonical).digest())


def wait_asked_for(request: Request[Any, Any, Any], longest_s: int) -> int | None:
    """The seconds of `Prefer: wait=N`, at most `longest_s`; None without such a preference."""
    return parse_wait(", ".join(request.headers.getall("prefer", [])) or None, longest_s)


def accepted(**ids: UUID) -> Describe:
    """For commands that answer 202 with the rows `ids`, whatever events they produce."""
    answer = (202, Show(**ids))
    return lambda _events, _workspace: answer


def present(row: V | None) -> V:
    """`row`, which the write asked the write path to return."""
    if row is None:
        raise AssertionError("the answer lacks a row that the write asked for")
    return row


def _rows_to_show(rows: AnswerRows, task: TaskRow) -> Show:
    return Show(
        workspace=None if rows.workspace is None else rows.workspace.id,
        snapshot=None if rows.snapshot is None else rows.snapshot.id,
        task=task.id,
    )


# The header parameters only declare the headers in the OpenAPI document. Their values come from the context, which
# joins repeated headers.
def _provide_keyed(
    service: NamedDependency[Service],
    request: Request[Any, Any, Any],
    context: NamedDependency[RequestContext],
    idempotency_key: _KeyHeader = None,  # noqa: ARG001
    prefer: PreferHeader = None,  # noqa: ARG001
) -> WriteRequest:
    return WriteRequest(service, request, context, parse_idempotency_key(context.idempotency_key))


def _provide_unkeyed(
    service: NamedDependency[Service],
    request: Request[Any, Any, Any],
    context: NamedDependency[RequestContext],
    optional_key: _KeyHeader = None,  # noqa: ARG001
) -> WriteRequest:
    sent = context.idempotency_key
    return WriteRequest(service, request, context, None if sent is None else parse_idempotency_key(sent))


WRITE_DEPENDENCIES: Final = {
    "write": Provide(_provide_keyed, sync_to_thread=False),
    "unkeyed_write": Provide(_provide_unkeyed, sync_to_thread=False),
}
"""`write` requires an idempotency key. `unkeyed_write` accepts one."""
