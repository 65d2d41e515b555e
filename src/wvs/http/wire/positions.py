"""Positions in the log as clients see them: `epoch:position`. A restore of the database raises the epoch."""

import re
from typing import Annotated, Final

from msgspec import Meta

from wvs.domain.errors import ErrorCode, Refused
from wvs.eventlog.reading.follower import LogEnd

PATTERN: Final = r"^[1-9][0-9]{0,8}:(0|[1-9][0-9]{0,17})$"
_POSITION: Final = re.compile(PATTERN)

Position = Annotated[str, Meta(pattern=PATTERN, examples=["1:42"])]


def format_position(epoch: int, position: int) -> str:
    """The text of a position."""
    return f"{epoch}:{position}"


def is_position(text: str) -> bool:
    """Whether `text` has the form of a position, in any epoch."""
    return _POSITION.fullmatch(text) is not None


def parse_position(text: str | None, end: LogEnd) -> int:
    """The position in `text`; 0 for None.

    Refuses `INVALID_CURSOR` for a position of another epoch or beyond the last event. A list after the latter would be
    empty, and a stream silent, until the log has grown past it, and would miss what it has grown by.
    """
    if text is None:
        return 0
    if not _POSITION.fullmatch(text):
        raise Refused(
            ErrorCode.INVALID_CURSOR,
            f"{text[:40]!r} is not a position of the form epoch:position",
            f"Send the `position` of an event, the last `id` of a stream, or {end.epoch}:0 to read from the start.",
        )
    epoch, position = map(int, text.split(":"))
    if epoch != end.epoch:
        raise Refused(
            ErrorCode.INVALID_CURSOR,
            f"the position is of epoch {epoch}, the log is at epoch {end.epoch}: the database was restored in between",
            "Read from the beginning: send the request without after.",
        )
    if position > end.last:
        raise Refused(
            ErrorCode.INVALID_CURSOR,
            f"the position {text} is beyond the end of the log, {end.epoch}:{end.last}: it belongs to another log, or "
            "the database has lost its newest events",
            f"Read from the beginning: after={end.epoch}:0. The operator finds out which it is: wvs runbook "
            "restored-database",
        )
    return position
