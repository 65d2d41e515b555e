"""The complete table of exit codes: one for each error code of the API that has a status."""

import pytest

from wvs.cli.wvsctl.api.exits import Exit, exit_of
from wvs.domain.errors import STATUS, ErrorCode

EXPECTED = {
    ErrorCode.INVALID_REQUEST: Exit.USAGE,
    ErrorCode.IDEMPOTENCY_KEY_REQUIRED: Exit.USAGE,
    ErrorCode.INVALID_CURSOR: Exit.USAGE,
    ErrorCode.SESSION_SECRET_INVALID: Exit.FAILURE,
    ErrorCode.WORKSPACE_NOT_FOUND: Exit.NOT_FOUND,
    ErrorCode.SNAPSHOT_NOT_FOUND: Exit.NOT_FOUND,
    ErrorCode.TASK_NOT_FOUND: Exit.NOT_FOUND,
    ErrorCode.SESSION_NOT_FOUND: Exit.NOT_FOUND,
    ErrorCode.VERSION_NOT_FOUND: Exit.NOT_FOUND,
    ErrorCode.ROUTE_NOT_FOUND: Exit.FAILURE,
    ErrorCode.METHOD_NOT_ALLOWED: Exit.FAILURE,
    ErrorCode.WORKSPACE_NAME_TAKEN: Exit.CONFLICT,
    ErrorCode.WORKSPACE_NOT_ACTIVE: Exit.CONFLICT,
    ErrorCode.WORKSPACE_DISABLED: Exit.CONFLICT,
    ErrorCode.WORKSPACE_NOT_INIT_FAILED: Exit.CONFLICT,
    ErrorCode.SNAPSHOT_NOT_READY: Exit.CONFLICT,
    ErrorCode.SNAPSHOT_IN_USE: Exit.CONFLICT,
    ErrorCode.SNAPSHOT_DROPPED: Exit.CONFLICT,
    ErrorCode.TASK_NOT_RETRYABLE: Exit.CONFLICT,
    ErrorCode.TASK_NOT_CANCELLABLE: Exit.CONFLICT,
    ErrorCode.IDEMPOTENCY_IN_FLIGHT: Exit.CONFLICT,
    ErrorCode.FREEZE_STALE: Exit.CONFLICT,
    ErrorCode.PATH_REPLACED: Exit.CONFLICT,
    ErrorCode.CURRENT_CHANGED: Exit.CONFLICT,
    ErrorCode.IDEMPOTENCY_KEY_REUSED: Exit.CONFLICT,
    ErrorCode.BODY_TOO_LARGE: Exit.USAGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Exit.FAILURE,
    ErrorCode.WORKSPACE_QUEUE_FULL: Exit.FAILURE,
    ErrorCode.INTERNAL: Exit.FAILURE,
    ErrorCode.UNAVAILABLE: Exit.FAILURE,
    ErrorCode.DISK_FULL: Exit.FAILURE,
}


def test_every_code_with_a_status_is_in_the_table() -> None:
    assert set(EXPECTED) == set(STATUS)


@pytest.mark.parametrize("code", STATUS)
def test_each_code_has_its_exit_code(code: ErrorCode) -> None:
    assert exit_of(STATUS[code], code) is EXPECTED[code]


def test_an_unknown_code_gets_the_exit_code_of_its_status() -> None:
    assert exit_of(409, "SOMETHING_NEW") is Exit.CONFLICT
    assert exit_of(418, "SOMETHING_NEW") is Exit.FAILURE


def test_the_exit_codes_that_scripts_rely_on_do_not_change() -> None:
    assert {code.name: code.value for code in Exit} == {
        "OK": 0,
        "FAILURE": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "CONFLICT": 5,
        "TASK_FAILED": 6,
        "WAIT_TIMED_OUT": 7,
        "INTERRUPTED": 130,
    }
