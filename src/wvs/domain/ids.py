"""Typed, sortable ids: `ws_…`, `snap_…`, `task_…`, `sess_…`.

A typed id is a TypeID (https://github.com/jetify-com/typeid/tree/main/spec): a prefix and a UUIDv7 in Crockford base32.
Inside the service and in Postgres an id is a plain `uuid.UUID`; the typed form exists at the edges (HTTP, paths, logs).
"""

from typing import Final, Literal
from uuid import UUID

from typeid import TypeID
from typeid.codecs import base32
from typeid.core.errors import TypeIDException

Prefix = Literal["ws", "snap", "task", "sess"]

WORKSPACE: Final[Prefix] = "ws"
SNAPSHOT: Final[Prefix] = "snap"
TASK: Final[Prefix] = "task"
SESSION: Final[Prefix] = "sess"

SUFFIX_LENGTH: Final = 26


class InvalidId(ValueError):
    """The text is not a typed id of the wanted kind."""


def format_id(prefix: Prefix, value: UUID) -> str:
    """The typed form of `value`, e.g. `ws_01h455vb4pex5vsknk084sn02q`."""
    return f"{prefix}_{base32.encode(value.bytes)}"


def suffix_of(value: UUID) -> str:
    """The 26 base32 characters of an id without its prefix; the first part of a tree's name (design §8)."""
    return base32.encode(value.bytes)


def parse_id(prefix: Prefix, text: str) -> UUID:
    """The UUID in `text`; raises `InvalidId` if the prefix differs or the suffix is not canonical base32."""
    if not text.startswith(prefix + "_") or len(text) != len(prefix) + 1 + SUFFIX_LENGTH:
        raise InvalidId(f"{text[:80]!r} is not an id of the form {prefix}_<26 characters>")
    try:
        return UUID(bytes=TypeID(prefix, text[-SUFFIX_LENGTH:]).uuid_bytes)
    except TypeIDException as error:
        raise InvalidId(f"{text[:80]!r} is not an id of the form {prefix}_<26 characters>") from error
