"""Failures on a volume: one exception that carries a code of the domain, and the one table from errno to code."""

import errno
import os
from collections.abc import Mapping
from typing import Final

from wvs.domain.errors import ErrorCode

CODE_OF_ERRNO: Final[Mapping[int, ErrorCode]] = {
    errno.ENOSPC: ErrorCode.VOLUME_FULL,
    errno.EDQUOT: ErrorCode.VOLUME_FULL,
    errno.EROFS: ErrorCode.VOLUME_UNAVAILABLE,
    errno.EIO: ErrorCode.VOLUME_UNAVAILABLE,
    errno.ESTALE: ErrorCode.VOLUME_UNAVAILABLE,
    errno.ENODEV: ErrorCode.VOLUME_UNAVAILABLE,
    errno.ENOTCONN: ErrorCode.VOLUME_UNAVAILABLE,
    errno.ENOMEDIUM: ErrorCode.VOLUME_UNAVAILABLE,
    errno.EREMOTEIO: ErrorCode.VOLUME_UNAVAILABLE,
    errno.EUCLEAN: ErrorCode.VOLUME_UNAVAILABLE,
    errno.ESHUTDOWN: ErrorCode.VOLUME_UNAVAILABLE,
    errno.ETIMEDOUT: ErrorCode.VOLUME_UNAVAILABLE,
}
"""Errnos that mean the medium, whatever the operation was; for every other one the operation chooses the code."""

HINT_OF_CODE: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.VOLUME_FULL: "free space on the volume (drop snapshots, raise the quota), then retry the task",
    ErrorCode.VOLUME_UNAVAILABLE: "check the volume's mount and the kernel log, then run `wvs volume check`",
}

LASTING_ERRNOS: Final = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENAMETOOLONG, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.EMLINK}
)
"""A retry fails in the same way until a person changes something."""

_RETRYABLE: Final = frozenset(
    {
        ErrorCode.VOLUME_FULL,
        ErrorCode.VOLUME_UNAVAILABLE,
        ErrorCode.CLONE_FAILED,
        ErrorCode.REMOVE_FAILED,
        ErrorCode.TORN_CLONE,
    }
)


class EngineError(Exception):
    """The one exception of this layer.

    Callers decide by `code`. `detail` is a sentence: what failed, and why. `hint` is what to do. `retryable` is true if
    the same call can succeed later although nobody changes the tree.
    """

    def __init__(self, code: ErrorCode, detail: str, hint: str = "", *, retryable: bool | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.hint = hint or HINT_OF_CODE.get(code, "")
        self.retryable = code in _RETRYABLE if retryable is None else retryable


def from_os_error(error: OSError, otherwise: ErrorCode, doing: str) -> EngineError:
    """`error` as an `EngineError`: with the medium's code if the errno means the medium, else with `otherwise`."""
    number = error.errno or 0
    code = CODE_OF_ERRNO.get(number, otherwise)
    reason = f"{errno.errorcode.get(number, 'unknown error')}, {os.strerror(number)}" if number else str(error)
    lasting = code is otherwise and number in LASTING_ERRNOS
    return EngineError(code, f"{doing}: {reason}", retryable=False if lasting else None)
