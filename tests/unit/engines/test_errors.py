import errno
import os

import pytest

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import CAUSES, HINT_OF_CODE, EngineError, from_os_error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_errno_for_lack_of_space_means_a_full_volume(number: int) -> None:
    error = from_os_error(OSError(number, ""), ErrorCode.CLONE_FAILED, "cloning x")
    assert error.code is ErrorCode.VOLUME_FULL
    assert error.retryable


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN])
def test_an_errno_of_a_failing_medium_means_an_unavailable_volume_in_every_operation(number: int) -> None:
    for otherwise in (ErrorCode.CLONE_FAILED, ErrorCode.REMOVE_FAILED):
        error = from_os_error(OSError(number, ""), otherwise, "doing x")
        assert error.code is ErrorCode.VOLUME_UNAVAILABLE
        assert error.retryable


def test_any_other_errno_has_the_code_of_the_operation_and_is_named() -> None:
    error = from_os_error(OSError(errno.EBUSY, ""), ErrorCode.REMOVE_FAILED, "removing x")
    assert error.code is ErrorCode.REMOVE_FAILED
    assert error.detail.startswith("removing x: EBUSY")
    assert error.retryable


# What a person at the machine has to change first, and what may go away by itself.
_LASTING = {
    *(errno.EPERM, errno.EACCES, errno.ENAMETOOLONG, errno.EILSEQ, errno.ELOOP, errno.EMLINK, errno.EFBIG, errno.EXDEV),
    *(errno.ETXTBSY, errno.ENOKEY, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL, errno.EOVERFLOW),
}


@pytest.mark.parametrize("number", sorted(CAUSES), ids=errno.errorcode.get)
def test_an_errno_has_cause_and_cure_and_is_repeated_only_if_that_can_help(number: int) -> None:
    error = from_os_error(OSError(number, ""), ErrorCode.CLONE_FAILED, "cloning x")
    assert error.retryable is (number not in _LASTING)
    assert error.detail.startswith(f"cloning x: {errno.errorcode[number]}, ")
    assert CAUSES[number].why in error.detail
    assert error.hint == CAUSES[number].hint


def test_an_error_says_which_user_lacks_the_right() -> None:
    error = from_os_error(OSError(errno.EACCES, ""), ErrorCode.CLONE_FAILED, "reading x")
    assert f"uid {os.geteuid()}" in error.detail


@pytest.mark.parametrize("code", sorted({*HINT_OF_CODE, ErrorCode.CLONE_FAILED, ErrorCode.REMOVE_FAILED}))
def test_an_error_without_a_hint_of_its_own_has_that_of_its_code(code: ErrorCode) -> None:
    assert EngineError(code, "x").hint == HINT_OF_CODE[code]


def test_the_path_of_the_tree_is_named_once() -> None:
    error = EngineError(ErrorCode.CLONE_FAILED, "reading a/b", "do this", retryable=False)
    once = error.inside("/v/trees/t/root")
    assert once.detail == "reading a/b (in /v/trees/t/root)"
    assert (once.hint, once.retryable) == ("do this", False)
    assert once.inside("/v/trees/t/root").detail == once.detail
    cancelled = EngineError(ErrorCode.CANCELLED, "cancelled on request")
    assert cancelled.inside("/v/trees/t/root").detail == cancelled.detail
