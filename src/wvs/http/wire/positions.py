"""Positions in the log as outsiders see them: `epoch:position` (the epoch is raised after a restore)."""

import re
from typing import Annotated, Final

from msgspec import Meta

from wvs.domain.errors import ErrorCode, Refused

PATTERN: Final = r"^[1-9][0-9]{0,8}:(0|[1-9][0-9]{0,17})$"
_POSITION: Final = re.compile(PATTERN)

Position = Annotated[str, Meta(pattern=PATTERN, examples=["1:42"])]


def format_position(epoch: int, position: int) -> str:
    """The text of a position."""
    return f"{epoch}:{position}"


def is_position(text: str) -> bool:
    """Whether `text` has the form of a position, of whatever epoch."""
    return _POSITION.fullmatch(text) is not None


def parse_position(text: str | None, epoch: int) -> int:
    """The position in `text`, 0 without one; refuses `INVALID_CURSOR` for a position of another log."""
    if text is None:
        return 0
    if not _POSITION.fullmatch(text):
        raise Refused(ErrorCode.INVALID_CURSOR, f"{text[:40]!r} is no position of the form epoch:position")
    of_epoch, position = text.split(":")
    if int(of_epoch) != epoch:
        raise Refused(
            ErrorCode.INVALID_CURSOR,
            f"the position is of epoch {of_epoch}, the log is at epoch {epoch}: the database was restored since",
            "Read from the beginning, without after.",
        )
    return int(position)
