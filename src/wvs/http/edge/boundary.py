"""The outermost layer: applies to every request, routed or not, before and after the app.

It is plain ASGI around Litestar, because Litestar's own middleware never sees an unrouted path or a wrong method.
"""

import asyncio
from time import perf_counter
from typing import Final

import msgspec
import structlog

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.edge.bodies import ClientGone, body_too_large, decoded, discard, read_body, replay
from wvs.http.edge.hosts import HostRule
from wvs.http.edge.limits import Limits
from wvs.http.edge.prefixes import forwarded_prefix
from wvs.http.edge.traffic import PROBE_PATHS, UNROUTED, Traffic
from wvs.http.problems import problem as problems
from wvs.http.wire.asgi import ASGIApp, Headers, Message, Receive, Scope, Send
from wvs.http.wire.context import RequestContext, attach, read_actor, read_context, select_headers

# nginx's status for a request without an answer because its client left. It is counted and logged, but never sent.
NO_ANSWER: Final = 499

# Keys of the scope's extensions: a function of the server that aborts the connection, and whether the method is HEAD.
ABORT: Final = "wvs.abort"
IS_HEAD: Final = "wvs.head"

_STOPPED: Final = "the service stopped before it had finished this request; a write may or may not have taken effect"


class Boundary:
    """Request id, trace, actor, host check, body limits, access log, metrics, and a problem for every exception."""

    def __init__(self, app: ASGIApp, *, hosts: HostRule, prefix: str, limits: Limits, traffic: Traffic) -> None:
        self.app = app
        self._hosts = hosts
        self._prefix = prefix
        self.limits = limits
        self.traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1008})
            case _:
                await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send)
        try:
            await self._forward(exchange)
        except ClientGone:
            exchange.status = NO_ANSWER
        except asyncio.CancelledError:
            # The server cancels the request at the end of draining. The task belongs to this request and ends here.
            await self._answer_failure(exchange, Refused(ErrorCode.UNAVAILABLE, _STOPPED))
        except Exception as error:  # noqa: BLE001 - the outermost frame answers every exception as a problem
            await self._answer_failure(exchange, error)
        finally:
            exchange.record(self.traffic)

    async def _forward(self, exchange: "_Exchange") -> None:
        scope, receive, headers = exchange.scope, exchange.receive, exchange.headers
        if prefix := self._prefix or forwarded_prefix(scope.get("client"), headers):
            exchange.set_context(msgspec.structs.replace(exchange.context, prefix=prefix))
        self._check(scope, headers)
        if b"x-actor" in headers:
            exchange.set_context(read_actor(exchange.context, headers))
        if exchange.has_body:
            announced = headers.get(b"content-length", b"0")
            if not announced.isdigit():
                raise _refuse_header("Content-Length", "not a number")
            if int(announced) > self.limits.body_bytes:
                raise body_too_large(self.limits.body_bytes)
            body = await read_body(receive, self.limits.body_bytes, self.limits.body_deadline_s)
            exchange.has_body = False
            receive = replay(decoded(body, headers.get(b"content-encoding"), self.limits.body_bytes), receive)
        await self.app(scope, receive, exchange.send)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        host = headers.get(b"host")
        if scope["path"] not in PROBE_PATHS and (host is None or not self._hosts.accepts(host)):
            raise _refuse_header("Host", "not a host that this service is configured for (WVS_ALLOWED_HOSTS)")
        if b"%00" in scope.get("query_string", b"") or "\x00" in scope["path"]:
            raise problems.refuse_fields(problems.FieldError("address", "", "contains the character U+0000"))

    async def _answer_failure(self, exchange: "_Exchange", error: Exception) -> None:
        problem = problems.record_problem(error, exchange.scope["state"])
        if exchange.status:
            # A part of the answer is already sent. Returning without its end makes the server abort the connection,
            # which is the only way left to show the failure to the client.
            exchange.status = problem.status
            return
        await exchange.send_problem(problem)
        if exchange.has_body:
            await discard(exchange.receive, self.limits.discard_bytes, self.limits.discard_deadline_s)
        await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})


def _as_get(scope: Scope) -> Scope:
    return {**scope, "method": "GET", "extensions": {**scope.get("extensions", {}), IS_HEAD: True}}


def _refuse_header(name: str, fault: str) -> Refused:
    return problems.refuse_fields(problems.FieldError("header", name, fault))


class _Exchange:
    """One request and its answer, as the boundary sees them."""

    __slots__ = ("_method", "_send", "_started_at", "context", "has_body", "headers", "receive", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._started_at = perf_counter()
        # The app sees a GET. The server looks at its own scope and omits the body of an answer to HEAD.
        self.scope: Scope = _as_get(scope) if scope["method"] == "HEAD" else scope
        self._method: str = scope["method"]
        self.receive = receive
        self._send = send
        self.headers = select_headers(scope["headers"])
        length = self.headers.get(b"content-length", b"0")
        self.has_body = length != b"0" or b"transfer-encoding" in self.headers
        self.status = 0
        self.set_context(read_context(self.headers))

    def set_context(self, context: RequestContext) -> None:
        """Attaches `context` to the request: to the scope for routes, to the context variables for logs."""
        self.context = context
        attach(self.scope, context)
        structlog.contextvars.bind_contextvars(request_id=context.request_id, trace_id=context.trace_id)

    async def send_problem(self, problem: problems.Problem) -> None:
        """Sends `problem` except for the end of the answer. A connection with an unread body is not reused."""
        body = problem.body(self.context.request_id, self.context.prefix)
        headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in problem.headers().items()]
        headers += [(b"content-type", problems.MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        if self.has_body:
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def send(self, message: Message) -> None:
        """Forwards the message; adds the request id and the trace to the headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._own_headers()]
        await self._send(message)

    def _own_headers(self) -> Headers:
        return [
            (b"x-request-id", self.context.request_id.encode("ascii")),
            (b"traceparent", self.context.traceparent.encode("ascii")),
        ]

    def record(self, traffic: Traffic) -> None:
        """Records the outcome in the access log and the metrics."""
        traffic.record_answer(
            context=self.context,
            route=self.scope.get("path_template") or UNROUTED,
            method=self._method,
            status=self.status,
            duration_s=perf_counter() - self._started_at,
            refusal=self.scope["state"].get(problems.REFUSAL_KEY),
        )
