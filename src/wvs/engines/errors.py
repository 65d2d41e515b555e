"""Failures on a volume: one exception with a code of the domain, and the table that says what each errno means here.

The table decides whether a failure is repeated: a failure that stays until a person changes something is reported at
once, with what to do.
"""

import errno
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from wvs.domain.errors import ErrorCode

_FREE_SPACE: Final = (
    "drop snapshots (wvsctl snapshot drop WORKSPACE SNAPSHOT), or grow the filesystem; then retry the task"
)
_MEDIUM: Final = "check the volume's mount and the kernel log, then run `wvs volume check`"
_RIGHTS: Final = (
    "give the service's user the right (as root: chown, chmod or setfacl), run the executor as root, or remove the "
    "entry; then retry the task"
)
_SHORTEN: Final = "rename or move the entry, then retry the task"
_FIT: Final = "run `wvs volume check`: the filesystem may not fit the volume's engine any more; or remove the entry"
_AGAIN: Final = "retry the task; the executor's log and the kernel log say more"


class Cause(NamedTuple):
    """What an errno means on a volume.

    `lasting`: a repetition fails in the same way until a person changes something. `code`: None if the operation
    chooses it.
    """

    why: str
    hint: str
    lasting: bool = True
    code: ErrorCode | None = None


def _full(why: str, hint: str = _FREE_SPACE) -> Cause:
    return Cause(why, hint, lasting=False, code=ErrorCode.VOLUME_FULL)


def _medium(why: str) -> Cause:
    return Cause(why, _MEDIUM, lasting=False, code=ErrorCode.VOLUME_UNAVAILABLE)


CAUSES: Final[Mapping[int, Cause]] = {
    errno.ENOSPC: _full("the filesystem has no space or no inodes left"),
    errno.EDQUOT: _full("a quota is used up", "raise the quota (quota, xfs_quota, btrfs qgroup), or " + _FREE_SPACE),
    errno.EROFS: _medium("the filesystem is read-only; the kernel makes it so after an error of the disk"),
    errno.EIO: _medium("the disk or its network failed"),
    errno.ESTALE: _medium("the file server lost the file"),
    errno.ENODEV: _medium("the device is gone"),
    errno.ENOTCONN: _medium("the mount's process has ended"),
    errno.ENOMEDIUM: _medium("the device has no medium"),
    errno.EREMOTEIO: _medium("the device failed"),
    errno.EUCLEAN: _medium("the filesystem is damaged"),
    errno.ESHUTDOWN: _medium("the filesystem was shut down after an error"),
    errno.ETIMEDOUT: _medium("the device or the file server does not answer"),
    errno.EPERM: Cause("the kernel forbids it to the service's user", _RIGHTS),
    errno.EACCES: Cause("the service's user has no right to it", _RIGHTS),
    errno.ENAMETOOLONG: Cause("the name is too long for the filesystem", _SHORTEN),
    errno.EILSEQ: Cause("the filesystem does not accept the name", _SHORTEN),
    errno.ELOOP: Cause("there is a symbolic link where WVS made a directory", "remove the link, then retry the task"),
    errno.EMLINK: Cause(
        "the file has as many hard links as the filesystem allows", "copy it (cp), then retry the task"
    ),
    errno.EFBIG: Cause(
        "the file is larger than the filesystem or the process may have one",
        "raise the limit (ulimit -f, LimitFSIZE=), or move the file out of the workspace; then retry the task",
    ),
    errno.EXDEV: Cause("it is on another mount", "unmount it, or mount it outside the workspace; then retry the task"),
    errno.ETXTBSY: Cause(
        "the kernel uses it as a swap file", "swapoff the file, or move it out of the workspace; then retry the task"
    ),
    errno.ENOKEY: Cause(
        "it is encrypted and the kernel does not have the key",
        "unlock the directory (fscrypt unlock), or move it out of the workspace; then retry the task",
    ),
    errno.EOPNOTSUPP: Cause("the filesystem does not support it", _FIT),
    errno.ENOTTY: Cause("the filesystem does not support it", _FIT),
    errno.ENOSYS: Cause("the kernel does not support it", _FIT),
    errno.EINVAL: Cause("the filesystem refuses it", _FIT),
    errno.EOVERFLOW: Cause("the value is too large for the filesystem", _FIT),
    errno.EAGAIN: Cause(
        "another process holds a lease or a lock on it",
        "end that process (fuser PATH), then retry the task",
        lasting=False,
    ),
    errno.EBUSY: Cause(
        "the kernel or a process uses it", "end that use (fuser PATH), then retry the task", lasting=False
    ),
    errno.EMFILE: Cause(
        "the executor has too many open files",
        "raise its limit (ulimit -n, LimitNOFILE=) and restart it",
        lasting=False,
    ),
    errno.ENFILE: Cause("the host has too many open files", "raise fs.file-max, then retry the task", lasting=False),
    errno.ENOMEM: Cause("the kernel has no memory left", "free memory on the host, then retry the task", lasting=False),
}
"""Every errno that a volume is known to give. Any other one is repeated; the operation chooses its code."""

CODE_OF_ERRNO: Final[Mapping[int, ErrorCode]] = {n: cause.code for n, cause in CAUSES.items() if cause.code is not None}
"""Errnos that mean the medium, whatever the operation was."""

HINT_OF_CODE: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.VOLUME_FULL: _FREE_SPACE,
    ErrorCode.VOLUME_UNAVAILABLE: _MEDIUM,
    ErrorCode.CLONE_FAILED: _AGAIN,
    ErrorCode.REMOVE_FAILED: _AGAIN,
    ErrorCode.TORN_CLONE: "find the process that writes outside the freeze (fuser -vm PATH), then retry the task",
    ErrorCode.TREE_MISSING: (
        "drop a snapshot without its directory; replace a live tree: wvsctl current set WORKSPACE SNAPSHOT --reset"
    ),
    ErrorCode.DEADLINE_EXCEEDED: "check whether the volume hangs (wvs volume check), then retry the task",
}
"""What to do where the error itself does not know better."""

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

    def inside(self, path: str) -> "EngineError":
        """The same error, with the path of the tree that its detail is about; a cancel is about no path."""
        if path in self.detail or self.code not in _RETRYABLE:
            return self
        return type(self)(self.code, f"{self.detail} (in {path})", self.hint, retryable=self.retryable)


class UnreadableError(EngineError):
    """The service's user may not read an entry of a tree."""


def from_os_error(error: OSError, otherwise: ErrorCode, doing: str) -> EngineError:
    """`error` as an `EngineError`, by the table: the medium's code if the errno means the medium, else `otherwise`."""
    number = error.errno or 0
    if not number:
        return EngineError(otherwise, f"{doing}: {error}")
    reason = f"{errno.errorcode.get(number, f'errno {number}')}, {os.strerror(number)}"
    cause = CAUSES.get(number)
    if cause is None:
        return EngineError(otherwise, f"{doing}: {reason}")
    why = f"{cause.why} (uid {os.geteuid()})" if number in (errno.EPERM, errno.EACCES) else cause.why
    code = cause.code or otherwise
    return EngineError(code, f"{doing}: {reason}: {why}", cause.hint, retryable=False if cause.lasting else None)
