"""Reads request bodies completely, under a size limit and a deadline, before the app starts."""

import asyncio
import zlib

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.problems.problem import FieldError, refuse_fields
from wvs.http.wire.asgi import Message, Receive


class ClientGone(Exception):
    """The client closed the connection before its body was complete. There is no one to answer."""


async def read_body(receive: Receive, limit_bytes: int, deadline_s: float) -> bytes:
    """The whole body.

    Refuses `BODY_TOO_LARGE` above the limit and `INVALID_REQUEST` after the deadline. Raises `ClientGone`. Because the
    body is read before the app starts, a slow sender holds only its connection, and the app never takes a partial body
    for a complete one.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > limit_bytes:
                    raise body_too_large(limit_bytes)
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise Refused(
            ErrorCode.INVALID_REQUEST,
            f"the body did not arrive within {deadline_s:g} s (only {size} bytes did); the connection is closed",
            "Send the whole body at once.",
        ) from None


def body_too_large(limit_bytes: int) -> Refused:
    """The refusal of a body over the limit."""
    return Refused(ErrorCode.BODY_TOO_LARGE, f"the body has more than {limit_bytes} bytes", limit_bytes=limit_bytes)


def decoded(body: bytes, coding: bytes | None, limit_bytes: int) -> bytes:
    """`body` without its `Content-Encoding`, which may be gzip.

    Never decodes more than the limit: a few kilobytes of gzip can hold gigabytes. Refuses `BODY_TOO_LARGE` above it,
    `INVALID_REQUEST` for damaged gzip, and `UNSUPPORTED_MEDIA_TYPE` for any other coding.
    """
    name = (coding or b"identity").strip().lower()
    if name == b"identity":
        return body
    if name not in (b"gzip", b"x-gzip"):
        raise Refused(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"the body has Content-Encoding {name.decode('latin-1')[:80]!r}, but only gzip and identity are supported",
            "Send the body without Content-Encoding, or with gzip.",
            accept_encoding="gzip, identity",
        )
    inflating = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = inflating.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise refuse_fields(FieldError("body", "", f"is not valid gzip ({error})")) from None
    if len(plain) > limit_bytes:
        raise body_too_large(limit_bytes)
    if not inflating.eof or inflating.unused_data:
        raise refuse_fields(FieldError("body", "", "is not valid gzip (it ends too early or too late)"))
    return plain


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first returns `body`, then the server's further messages (the disconnect)."""
    delivered = False

    async def receive_again() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def discard(receive: Receive, limit_bytes: int, deadline_s: float) -> None:
    """Reads and drops what the client still sends, within both limits.

    Closing at once would reset the connection, and a client that is still sending would never see its answer
    (RFC 9112 §9.6). Nothing is kept in memory.
    """
    try:
        async with asyncio.timeout(deadline_s):
            while limit_bytes > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                limit_bytes -= len(message.get("body", b""))
    except TimeoutError:
        return
