"""Opaque cursors of keyset lists: a position that continues only the list and the filters that produced it."""

import hmac
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar.params import QueryParameter

from wvs.domain.errors import ErrorCode, Refused

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 1000

Limit = Annotated[
    int,
    QueryParameter(
        name="limit", ge=1, le=MAX_LIMIT, description="The maximum number of items in the answer.", required=False
    ),
]
CursorText = Annotated[
    str | None,
    QueryParameter(
        name="cursor",
        max_length=1024,
        required=False,
        description="`next_cursor` of the previous page; use it with the same filters.",
    ),
]

# The seal prevents that a cursor is used with another list by mistake. Its key is not secret: a forged cursor shows
# nothing that the list itself does not show.
_SEAL_KEY: Final = b"wvs list cursor v1"
_SEAL_BYTES: Final = 12

T = TypeVar("T")


def encode_cursor(position: Any, route: str, filters: Mapping[str, Any]) -> str:
    """The cursor for `position` (the sort key of the last item shown, any JSON-encodable value) in this list.

    It begins with a letter, as JSON in base64 does: a shell command would take one that begins with `-` for an option.
    """
    payload = msgspec.json.encode(position)
    return _to_text(payload + _seal(payload, route, filters))


def decode_cursor(text: str, position_type: type[T], route: str, filters: Mapping[str, Any]) -> T:
    """The position in `text`. Refuses `INVALID_CURSOR` unless the cursor belongs to this route and these filters.

    A filter that is None equals an absent one. The page size is not a filter.
    """
    try:
        sealed = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        payload, seal = sealed[:-_SEAL_BYTES], sealed[-_SEAL_BYTES:]
        # Several texts decode to the same bytes (unused last bits). Accept only the text that the service issued.
        if _to_text(sealed) == text and hmac.compare_digest(seal, _seal(payload, route, filters)):
            return msgspec.json.decode(payload, type=position_type)
    except ValueError:  # not base64, not ASCII, not JSON, or another type of position
        pass
    raise Refused(ErrorCode.INVALID_CURSOR, "the cursor is damaged, or it belongs to another list or to other filters")


def _to_text(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def _seal(payload: bytes, route: str, filters: Mapping[str, Any]) -> bytes:
    given = {name: value for name, value in filters.items() if value is not None}
    bound = msgspec.json.encode([route, given], order="deterministic")
    # The length distinguishes two different splits of the same bytes.
    message = len(bound).to_bytes(4) + bound + payload
    return hmac.digest(_SEAL_KEY, message, sha256)[:_SEAL_BYTES]
