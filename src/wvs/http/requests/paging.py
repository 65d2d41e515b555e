"""The start of a page of a list and the cursor of the next page. Cursors are bound to the list and its filters."""

from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from wvs.http.wire.cursors import decode_cursor, encode_cursor
from wvs.projections.listings import NEWEST, Slice


class _HasId(Protocol):
    @property
    def id(self) -> UUID: ...


R = TypeVar("R", bound=_HasId)


def start_of(cursor: str | None, route: str, wanted: Struct) -> UUID:
    """The id after which the page starts: its rows are older. Refuses `INVALID_CURSOR`."""
    if cursor is None:
        return NEWEST
    return decode_cursor(cursor, UUID, route, msgspec.structs.asdict(wanted))


def next_cursor(page: Slice[R], route: str, wanted: Struct) -> str | None:
    """The cursor of the page after this one; None at the end of the list."""
    if not page.more:
        return None
    return encode_cursor(page.rows[-1].id, route, msgspec.structs.asdict(wanted))
