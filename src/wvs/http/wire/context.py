"""Who asks, under which request id and trace: read from the headers once, carried in `scope["state"]`."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from litestar.connection import ASGIConnection

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.wire.asgi import Scope

ANONYMOUS: Final = "anonymous"
STATE_KEY: Final = "wvs_request"
ACTOR_PATTERN: Final = "^[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}$"

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")
_ACTOR: Final = re.compile(ACTOR_PATTERN.strip("^$").encode("ascii"))
# Version 00 has exactly four fields. A higher version may append more (https://www.w3.org/TR/trace-context/#versioning).
_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 0x01

_SELECTED: Final = frozenset(
    {
        b"host",
        b"content-encoding",
        b"content-length",
        b"transfer-encoding",
        b"x-request-id",
        b"traceparent",
        b"x-actor",
        b"idempotency-key",
        b"x-forwarded-prefix",
    }
)


class RequestContext(msgspec.Struct, frozen=True, gc=False):
    """The fields that every event, log line and problem of one request carries.

    `traceparent` names the span of this request, which is the parent of the work it causes. `actor` is the name that
    the caller claims; nothing has verified it while `actor_verified` is false. `idempotency_key` is the raw header.
    `prefix` is the path under which a proxy serves the API: links in the answer begin with it.
    """

    request_id: str
    trace_id: str
    traceparent: str
    actor: str = ANONYMOUS
    actor_verified: bool = False
    idempotency_key: str | None = None
    prefix: str = ""


def context_of(request: ASGIConnection[Any, Any, Any, Any]) -> RequestContext:
    """The context that the boundary attached to this request. Raises `KeyError` if there is no boundary."""
    return request.scope["state"][STATE_KEY]


def attach(scope: Scope, context: RequestContext) -> None:
    """Puts `context` where `context_of` finds it."""
    scope.setdefault("state", {})[STATE_KEY] = context


def select_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that the boundary reads. Joins the values of a repeated header with `, ` (RFC 9110 §5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _SELECTED:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def read_context(headers: Mapping[bytes, bytes]) -> RequestContext:
    """The context of a request with these headers. Replaces a malformed request id or trace with a new one.

    `read_actor` reads the actor afterwards: a malformed actor refuses the request, and a refusal needs the context.
    """
    trace_id, traceparent = _follow(headers.get(b"traceparent"))
    key = headers.get(b"idempotency-key")
    return RequestContext(
        request_id=_request_id(headers.get(b"x-request-id")),
        trace_id=trace_id,
        traceparent=traceparent,
        idempotency_key=None if key is None else key.decode("latin-1"),
    )


def read_actor(context: RequestContext, headers: Mapping[bytes, bytes]) -> RequestContext:
    """`context` with the caller's `X-Actor`. Refuses `INVALID_REQUEST` for a malformed one."""
    actor = headers.get(b"x-actor")
    if actor is None:
        return context
    if not _ACTOR.fullmatch(actor):
        raise Refused(
            ErrorCode.INVALID_REQUEST,
            "the header X-Actor must be 1 to 128 of A-Z a-z 0-9 . _ : @ / + - and begin with a letter or digit",
            "Send a short stable name such as alice or ci/build-17, or omit the header.",
            errors=[{"in": "header", "field": "X-Actor", "problem": "malformed"}],
        )
    return msgspec.structs.replace(context, actor=actor.decode("ascii"))


def _request_id(sent: bytes | None) -> str:
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return os.urandom(16).hex()


def _follow(sent: bytes | None) -> tuple[str, str]:
    """The trace id, and the traceparent of this request's own span. Starts a new trace without a valid traceparent."""
    span_id = os.urandom(8).hex()
    match = None if sent is None else _TRACEPARENT.fullmatch(sent)
    if match is None or not _is_valid(match):
        trace_id = os.urandom(16).hex()
        return trace_id, f"00-{trace_id}-{span_id}-00"
    trace_id = match[2].decode("ascii")
    # Version 00 defines only the sampled flag, and only defined flags may be passed on.
    return trace_id, f"00-{trace_id}-{span_id}-{int(match[4], 16) & _SAMPLED:02x}"


def _is_valid(match: re.Match[bytes]) -> bool:
    version, trace_id, parent_id, rest = match[1], match[2], match[3], match[5]
    if version == b"ff" or trace_id == b"0" * 32 or parent_id == b"0" * 16:
        return False
    return version != b"00" or rest is None
