"""Request bodies: read whole under a limit and a deadline before the app starts, then decoded strictly."""

import asyncio
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, cast

import msgspec
from litestar import Request

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.asgi import Message, Receive
from wvs.http.problems import FieldError, refuse_fields

# msgspec tells the place of a fault only in its message: "Expected `str`, got `int` - at `$.labels[...]`".
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")
_NAMED_FIELD: Final = re.compile(r"^Object (?:contains unknown|missing required) field `(.*)`$")
_ESCAPED_NUL: Final = b"\\u0000"


class ClientGone(Exception):
    """The client closed the connection before its body was complete; nobody is left to answer."""


async def read_body(receive: Receive, limit_bytes: int, deadline_s: float) -> bytes:
    """The whole body. Refuses `BODY_TOO_LARGE` past the limit and `INVALID_REQUEST` past the deadline; `ClientGone`.

    Reading before the app starts keeps a slow sender from holding anything but its connection, and a partial body
    from ever being taken for a whole one.
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
            f"the body did not arrive within {deadline_s:g} s ({size} bytes did); the connection is closed",
            "Send the whole body at once.",
        ) from None


def body_too_large(limit_bytes: int) -> Refused:
    """The refusal of a body over the limit."""
    return Refused(ErrorCode.BODY_TOO_LARGE, f"the body has more than {limit_bytes} bytes", limit_bytes=limit_bytes)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` first, then whatever the server has to tell (the disconnect)."""
    delivered = False

    async def receive_again() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def discard(receive: Receive, limit_bytes: int, deadline_s: float) -> None:
    """Reads and drops what is still sent, within both bounds.

    Closing at once would reset the connection, and a client in the middle of sending would never see its answer
    (RFC 9112 §9.6). Nothing is kept, so only time is spent, and little of that.
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


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is decoded straight into the handler's `data` type, without any coercion.

    Litestar alone decodes to dicts first and then converts leniently: `"1"` would pass for 1 and `"yes"` for true.
    """

    async def json(self) -> Any:
        """The body as the type of the handler's `data`; refuses `INVALID_REQUEST` naming the field."""
        field = self.route_handler.parsed_data_field
        return decode_strictly(await self.body(), Any if field is None else field.annotation)


def decode_strictly(body: bytes, wanted: Any) -> Any:
    """`body` as `wanted`; refuses `INVALID_REQUEST` for anything else.

    U+0000 is refused in every text: Postgres cannot store it, and an error from there would come too late.
    """
    try:
        decoded = _decoder(wanted).decode(body)
    except msgspec.ValidationError as error:
        raise refuse_fields(_field_error(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refuse_fields(FieldError("body", "", f"not valid JSON in UTF-8: {error}")) from None
    if _ESCAPED_NUL in body and _holds_nul(msgspec.json.decode(body)):
        raise refuse_fields(FieldError("body", "", "a text contains the character U+0000"))
    return decoded


@lru_cache(maxsize=256)
def _decoder(wanted: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wanted, strict=True)


def _field_error(message: str) -> FieldError:
    place = _PLACE.search(message)
    path = place[1] if place else ""
    problem = message[: place.start()] if place else message
    if named := _NAMED_FIELD.match(problem):
        path = f"{path}.{named[1]}" if path else named[1]
        problem = "unknown field" if "unknown" in problem else "required, and missing"
    return FieldError("body", path, problem)


def _holds_nul(decoded: Any) -> bool:
    pending = [decoded]
    while pending:
        item = pending.pop()
        if isinstance(item, str) and "\x00" in item:
            return True
        if isinstance(item, dict):
            pending.extend(cast("dict[str, Any]", item).items())
        elif isinstance(item, list | tuple):
            pending.extend(cast("Iterable[Any]", item))
    return False
