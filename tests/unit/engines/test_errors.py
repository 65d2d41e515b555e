import errno

import pytest

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import CODE_OF_ERRNO, HINT_OF_CODE, LASTING_ERRNOS, from_os_error


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


@pytest.mark.parametrize("number", sorted(LASTING_ERRNOS))
def test_an_error_that_only_a_person_can_remove_is_not_retried(number: int) -> None:
    assert not from_os_error(OSError(number, ""), ErrorCode.CLONE_FAILED, "cloning x").retryable


def test_every_code_of_the_table_has_a_hint() -> None:
    assert set(CODE_OF_ERRNO.values()) == set(HINT_OF_CODE)
