"""The exit codes of `wvsctl`, and the exit code for each refusal by the API (design §10)."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from wvs.domain.errors import ErrorCode


class Exit(IntEnum):
    """The exit codes. Scripts rely on them, so they are part of the interface."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 5
    TASK_FAILED = 6
    WAIT_TIMED_OUT = 7
    INTERRUPTED = 130


_BY_STATUS: Final[Mapping[int, Exit]] = {
    400: Exit.USAGE,
    403: Exit.FAILURE,
    404: Exit.NOT_FOUND,
    405: Exit.FAILURE,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    413: Exit.USAGE,
    415: Exit.FAILURE,
    422: Exit.CONFLICT,
    429: Exit.FAILURE,
    500: Exit.FAILURE,
    503: Exit.FAILURE,
    507: Exit.FAILURE,
}


def exit_of(status: int, code: str) -> Exit:
    """The exit code for a problem of the API; a status that this console does not know is `FAILURE`.

    An unknown path is not a missing resource: it shows that `--url` points to the wrong place.
    """
    if code == ErrorCode.ROUTE_NOT_FOUND:
        return Exit.FAILURE
    return _BY_STATUS.get(status, Exit.FAILURE)
